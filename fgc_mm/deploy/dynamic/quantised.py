"""Refusing quantised networks."""

from __future__ import annotations

from torch import nn

from fgc_mm.errors import FGCError

QUANTISED = {'quantized', 'quantization', 'qat'}


def refuse_quantised(model: nn.Module) -> None:
    """Refuse networks with quantised layers.

    Raises:
        FGCError: A layer is quantised, or prepared for it.
    """
    for path, module in model.named_modules():
        own = [module, *module.parameters(recurse=False)]
        for kind in map(type, own):
            if _is_quantised(kind):
                raise FGCError(
                    f'{path} has a {kind.__module__}.{kind.__name__}, but '
                    'channels are skipped in float layers only; make the '
                    'dynamic model from the one that was not quantised.'
                )


def _is_quantised(kind: type) -> bool:
    first, *words = kind.__module__.split('.')
    return first == 'torchao' or (
        first == 'torch' and bool(QUANTISED & set(words))
    )
