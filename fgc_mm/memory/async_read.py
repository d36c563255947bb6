"""Reading a value from a device one step later, without blocking."""

import torch
from torch import Tensor


def read_would_block(tensor: Tensor) -> bool:
    """Whether reading a value of this tensor synchronises with a device."""
    return tensor.device.type != 'cpu'


class AsyncRead:
    """A number that is copied from the device to the host asynchronously.

    ``tensor.item()`` waits until the device has finished all queued work.
    Here the copy is queued at once, and :meth:`get`, one step later, waits
    only for the work queued before it.

    Args:
        value: () on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._event: torch.cuda.Event | None = None
        if value.is_cuda:
            self._value = torch.empty_like(
                value, device='cpu', pin_memory=True
            )
            self._value.copy_(value, non_blocking=True)
            stream = torch.cuda.current_stream(value.device)
            self._event = stream.record_event()

    def get(self) -> float | bool:
        """The number."""
        if self._event is not None:
            self._event.synchronize()
        return self._value.item()
