"""Disabling autocast."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context with autocast disabled for the device of a tensor."""
    kind = tensor.device.type
    # some devices (meta) have no autocast
    known = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind if known else 'cpu', enabled=False)
