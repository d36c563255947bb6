"""Small tensors on their way to a device."""

import torch
from torch import Tensor


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """A tensor of whole numbers, copied without a wait for the device.

    Args:
        numbers: As many as wanted.
        device: Where the tensor shall lie.

    Returns:
        int64.
    """
    tensor = torch.tensor(numbers, dtype=torch.int64)
    if device.type == 'cuda':
        tensor = tensor.pin_memory()  # others are copied while the host waits
    return tensor.to(device, non_blocking=True)
