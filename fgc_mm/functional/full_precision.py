"""Regions in which autocast does not lower the precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Autocast switched off for the device of a tensor.

    Args:
        tensor: Any tensor; operations keep the types of their own inputs.
    """
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
