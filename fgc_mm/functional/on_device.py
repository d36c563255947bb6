"""Copying small tensors to a device."""

from functools import lru_cache

import torch
from torch import Tensor


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """An int64 tensor, copied without blocking the host."""
    return copied_to(torch.tensor(numbers, dtype=torch.int64), device)


def copied_to(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU, copied without blocking the host."""
    if device.type == 'cuda':
        tensor = tensor.pin_memory()  # pageable memory would block the host
    return tensor.to(device, non_blocking=True)


def kept_on_device(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """As :func:`on_device`, but copied once only; not to be modified."""
    if torch.compiler.is_compiling():  # traced tensors must not be kept
        return torch.tensor(numbers, device=device)
    return _copied_once(numbers, device)


@lru_cache(maxsize=1024)
def _copied_once(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    # a tensor made under inference mode could not be used in training
    with torch.inference_mode(False):
        return on_device(list(numbers), device)
