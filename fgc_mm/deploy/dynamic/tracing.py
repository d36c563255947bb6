"""Tracers cannot follow a dynamic model: its channels depend on the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import FGCError

SENTENCE = (
    '{} cannot record a dynamic model, whose channels depend on the image and '
    'whose kernel it does not see; give it the masked model that this one was '
    'made from.'
)


def refuse_tracing(x: Any = None) -> None:
    """Refuse to run where a pass is recorded in order to be repeated.

    A tracer would take the channels of one image for those of all images,
    and it does not see what the compiled kernel computes.

    Args:
        x: What the model is given.

    Raises:
        FGCError: A tracer is at work, or ``x`` has no values.
    """
    tracer = _tracer(x)
    if tracer:
        raise FGCError(SENTENCE.format(tracer))


def refuse_scripting(_: Any) -> None:
    """What ``torch.jit.script`` calls first.

    Raises:
        FGCError: Always.
    """
    raise FGCError(SENTENCE.format('torch.jit.script'))


def _tracer(x: Any) -> str:
    """Its name; '' if there is none."""
    if torch.jit.is_tracing():
        return 'torch.jit.trace'
    if torch.compiler.is_compiling():
        return 'torch.export or torch.compile'
    if isinstance(x, torch.fx.Proxy):
        return 'torch.fx.symbolic_trace'
    # fake tensors, batched and functional ones
    if isinstance(x, Tensor) and not _has_values(x):
        return f'what gives a {type(x).__name__} without values'
    return ''


def _has_values(x: Tensor) -> bool:
    if type(x) not in (Tensor, torch.nn.Parameter):
        return not hasattr(x, 'fake_mode')
    return x.device.type != 'meta'
