"""Refusing tracers: the channels of a dynamic model depend on the image."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from fgc_mm.errors import FGCError

MESSAGE = (
    '{} cannot record a dynamic model, whose channels depend on the image and '
    'whose kernel it cannot see; give it the masked model that this one was '
    'made from.'
)


def refuse_tracing(x: Any) -> None:
    """Raise FGCError if a tracer is recording the pass.

    Args:
        x: The model's input; it has no values for some tracers.
    """
    tracer = _tracer(x)
    if tracer:
        raise FGCError(MESSAGE.format(tracer))


def refuse_scripting(_: Any) -> None:
    """Hook that ``torch.jit.script`` calls first; always an error."""
    raise FGCError(MESSAGE.format('torch.jit.script'))


def _tracer(x: Any) -> str:
    """Name of the active tracer; '' if there is none."""
    if torch.jit.is_tracing():
        return 'torch.jit.trace'
    if torch.compiler.is_compiling():
        return 'torch.export or torch.compile'
    if isinstance(x, torch.fx.Proxy):
        return 'torch.fx.symbolic_trace'
    if _is_made_graph():
        return 'make_fx'
    # its type is Tensor, but it has the values of several calls
    if isinstance(x, Tensor) and is_functorch_wrapped_tensor(x):
        return 'a transform of torch.func (vmap, grad, jvp)'
    # fake and functional tensors
    if isinstance(x, Tensor) and not _has_values(x):
        return f'a tracer with a {type(x).__name__} without values'
    return ''


def _is_made_graph() -> bool:
    """Whether ``make_fx`` is recording."""
    # slow to import, and active only if someone has imported it
    module = sys.modules.get('torch.fx.experimental.proxy_tensor')
    mode = getattr(module, 'get_proxy_mode', lambda: None)
    return mode() is not None


def _has_values(x: Tensor) -> bool:
    if type(x) not in (Tensor, torch.nn.Parameter):
        return not hasattr(x, 'fake_mode')
    return x.device.type != 'meta'
