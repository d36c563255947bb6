"""Mixed precision in bfloat16, also on a CPU."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.registry import OPTIM_WRAPPERS
from fgc_mm.type_name import type_name

# CPU flags of x86 and ARM for bfloat16 multiplication
FLAGS = {'avx512_bf16', 'amx_bf16', 'bf16'}


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` that runs the forward pass in bfloat16 autocast.

    mmengine's ``AmpOptimWrapper`` does not support CPUs, since its loss
    scaling needs CUDA. bfloat16 has the exponent range of float32, so the
    loss is not scaled and the optimizer has the only state: checkpoints are
    those of an ``OptimWrapper``, and resuming is equally exact. Weights,
    gradients and gate losses stay in float32.

    Args:
        **kwargs: As in ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass and the losses."""
        device = torch.device(get_device()).type
        with (
            super().optim_context(model),
            torch.autocast(device, dtype=torch.bfloat16),
        ):
            yield


def use_mixed_precision(cfg: Config, wanted: bool) -> None:
    """Set the optimizer wrapper for mixed precision on this machine.

    On a GPU this is mmengine's ``AmpOptimWrapper`` with dynamic loss scaling,
    as with upstream's ``--amp``; on a CPU :class:`BFloat16OptimWrapper`.

    Args:
        cfg: The Runner's config; its ``optim_wrapper`` is changed.
        wanted: Whether ``--amp`` was given; otherwise only a config with
            ``AmpOptimWrapper`` is changed, on a machine without a GPU.

    Raises:
        FGCError: float16 on a CPU, or a device without autocast.
    """
    wrapper: Any = cfg.get('optim_wrapper') or {}
    named = type_name(wrapper).endswith('AmpOptimWrapper')
    if not wanted and not named:
        return
    device = get_device()
    if device not in ('cpu', 'mps'):
        if wanted:
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')
        return
    dtype = str(wrapper.get('dtype') or 'bfloat16').removeprefix('torch.')
    if device == 'mps' or dtype != 'bfloat16':
        raise FGCError(
            f'mixed precision in {dtype} is not available on {device}: '
            'the loss scaling of float16 needs an NVIDIA GPU, and a CPU '
            'trains in bfloat16; train without --amp, or set '
            'optim_wrapper.dtype=bfloat16 on a CPU.'
        )
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper.type = 'fgc_mm.BFloat16OptimWrapper'
    if not multiplies_bfloat16():
        print_log(
            'This CPU has no instructions that multiply bfloat16, so mixed '
            'precision is slower here than float32.',
            logger='current',
            level=logging.WARNING,
        )


def multiplies_bfloat16(cpuinfo: str | Path = '/proc/cpuinfo') -> bool:
    """Whether the CPU multiplies bfloat16; true if its flags are unknown."""
    try:
        text = Path(cpuinfo).read_text('utf-8', 'replace')
    except OSError:
        return True
    flags = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.MULTILINE)
    return flags is None or bool(FLAGS & set(flags[1].split()))
