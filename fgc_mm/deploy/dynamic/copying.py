"""A model's copy in evaluation, whatever has been done to its weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from fgc_mm.errors import FGCError

QUANTISED = {'quantized', 'quantization', 'qat'}


def evaluating_copy(model: nn.Module) -> nn.Module:
    """A deep copy in evaluation.

    ``weight_norm``, ``spectral_norm`` and ``torch.nn.utils.prune`` keep a
    weight that they have computed as a plain attribute. ``copy.deepcopy``
    refuses it while it belongs to a graph of gradients; only its values
    matter here.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed).train(False)


def refuse_quantised(model: nn.Module) -> None:
    """Refuse layers of another arithmetic.

    Raises:
        FGCError: A layer is quantised, or about to be.
    """
    for path, module in model.named_modules():
        own = [module, *module.parameters(recurse=False)]
        for kind in map(type, own):
            if _is_quantised(kind):
                raise FGCError(
                    f'{path} has a {kind.__module__}.{kind.__name__}, but '
                    'channels are skipped in float layers only; make the '
                    'dynamic model of the one that was not quantised.'
                )


def _is_quantised(kind: type) -> bool:
    first, *words = kind.__module__.split('.')
    return first == 'torchao' or (
        first == 'torch' and bool(QUANTISED & set(words))
    )
