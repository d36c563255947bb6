"""Chunk sizes by device.

On a CPU, chunks that fit the cache are fastest; on an accelerator every
operation costs the host a launch of some microseconds, so chunks are large.
"""

from torch import Tensor


def is_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is on the CPU, where there is no launch overhead."""
    return tensor.device.type == 'cpu'


def by_device(tensor: Tensor, cpu: int, accelerator: int) -> int:
    """Select the number for the device of a tensor."""
    return cpu if is_cpu(tensor) else accelerator
