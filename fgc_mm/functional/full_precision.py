"""Regions in which autocast does not lower the precision."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """Autocast switched off for the device of a tensor.

    Args:
        tensor: Any tensor; operations keep the types of their own inputs.
    """
    kind = tensor.device.type
    # a device without autocast (meta) has nothing to switch off
    known = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind if known else 'cpu', enabled=False)
