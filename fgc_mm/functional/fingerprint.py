"""A checksum of a table, to compare copies."""

import torch
from torch import Tensor

from fgc_mm.functional._chunks import sizes_for

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(rows: Tensor) -> Tensor:
    """Weighted sum of the bits of all elements.

    The weights are odd and depend on the index, and the sum wraps around at
    2^64. So one changed element always changes the sum, and several changes
    cancel each other only by chance.

    Args:
        rows: (D, C), any floating dtype.

    Returns:
        () int64: equal for equal bits, on every device.
    """
    bits = rows.detach().contiguous().view(_BITS[rows.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=rows.device)
    size = sizes_for(rows).checksum
    for number, part in enumerate(bits.flatten().split(size)):
        position = torch.arange(len(part), device=part.device) + number * size
        # times an odd number: adjacent indices get very different weights
        weight = (position * 0x5851F42D4C957F2D) | 1
        total += (part.long() * weight).sum()
    return total
