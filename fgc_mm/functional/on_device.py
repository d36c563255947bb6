"""Copying small tensors to a device."""

import torch
from torch import Tensor


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """A tensor of integers, copied without blocking the host.

    Args:
        numbers: The integers.
        device: Destination.

    Returns:
        int64.
    """
    tensor = torch.tensor(numbers, dtype=torch.int64)
    if device.type == 'cuda':
        tensor = tensor.pin_memory()  # pageable memory would block the host
    return tensor.to(device, non_blocking=True)
