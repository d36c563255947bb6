"""Whether all ranks have the same memory banks."""

import torch
from mmengine.dist import get_world_size

from fgc_mm.errors import FGCError
from fgc_mm.functional import fingerprint
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.reliability.rank_consistency import find_difference


def check_same_length(length: int, device: torch.device) -> None:
    """Every rank must see the same number of training images.

    Args:
        length: D, as this rank has counted them.
        device: where the process group's tensors lie.

    Raises:
        FGCError: One rank counts others; all ranks raise it.
    """
    found = find_difference(torch.tensor([length], device=device))
    if found is not None:
        raise FGCError(
            f'rank {found.rank} has {found.value} training images and rank 0 '
            f'has {found.expected}, but all ranks share one memory bank with '
            'a row per image; give every machine the same data.'
        )


def check_same_banks(loss: FeatureGateCouplingLoss) -> None:
    """Banks that are copied on every rank must be alike, bit by bit.

    One collective of a number per bank. Shards of a bank are nobody's copy
    and are not compared.

    Raises:
        FGCError: A rank's rows differ from rank 0's; all ranks raise it.
    """
    if get_world_size() == 1:
        return
    names, marks = [], []
    for site, banks in loss.banks.items():
        for space in ('feature', 'gate'):
            names.append(f'{space} bank of {site}')
            marks.append(fingerprint(getattr(banks, space).rows))
    found = find_difference(torch.stack(marks))
    if found is not None:
        raise FGCError(
            f'the {names[found.position]} on rank {found.rank} is not the one '
            'on rank 0, but every rank must write the same rows; run the same '
            'code, config and kind of device on all ranks, and resume from '
            'the last checkpoint.'
        )
