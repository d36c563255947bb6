"""Compares an exported file with the network from which it was made."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fgc_mm.deploy.comparing import TOLERANCE, largest_gap
from fgc_mm.errors import FGCError


@torch.no_grad()
def largest_difference(
    wanted: Callable[[Tensor], Tensor],
    got: Callable[[Tensor], Tensor],
    batches: Sequence[Tensor],
) -> float:
    """Largest difference of logits, relative as for ``TOLERANCE``."""
    own = [wanted(batch) for batch in batches]
    return largest_gap(own, [got(batch) for batch in batches], least=1.0)


def check_same(gap: float, file: str | Path) -> None:
    """Raise FGCError if an exported file gives other results."""
    if not gap <= TOLERANCE:
        raise FGCError(
            f'the logits of {file} differ by {gap:.1e} from those in torch, '
            f'above {TOLERANCE:g}; do not use the file, and please report '
            'the config.'
        )
