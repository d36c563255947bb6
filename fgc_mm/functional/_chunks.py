"""How much is computed at a time.

On a CPU what fits its cache is fastest; on an accelerator every operation is
a launch, which costs the host microseconds, so there are few large ones.
"""

from torch import Tensor


def is_cpu(tensor: Tensor) -> bool:
    """Whether a tensor lies on the CPU, where a launch costs nothing."""
    return tensor.device.type == 'cpu'


def by_device(tensor: Tensor, cpu: int, accelerator: int) -> int:
    """The number that suits the device of a tensor."""
    return cpu if is_cpu(tensor) else accelerator
