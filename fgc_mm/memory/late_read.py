"""A value that the host reads a step later, so that it need not wait."""

import torch
from torch import Tensor


def waits(tensor: Tensor) -> bool:
    """Whether reading a value of this tensor would wait for a device."""
    return tensor.device.type != 'cpu'


class LateRead:
    """A number on its way from the device to the host.

    ``tensor.item()`` waits until the device has done all that was asked of
    it. Here the copy is queued at once, and :meth:`get`, a step later, waits
    for no more than what was queued before it.

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
