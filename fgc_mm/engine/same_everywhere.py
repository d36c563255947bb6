"""Whether all ranks hold what they should hold alike."""

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional import fingerprint
from fgc_mm.losses import FeatureGateCouplingLoss


def check_same_length(length: int, device: torch.device) -> None:
    """Every rank must see the same number of training images.

    Args:
        length: D, as this rank has counted them.
        device: where the process group's tensors lie.

    Raises:
        FGCError: One rank counts others; all ranks raise it.
    """
    lengths = _everyones(torch.tensor([length], device=device))
    for rank, other in enumerate(lengths[:, 0].tolist()):
        if other != int(lengths[0, 0]):
            raise FGCError(
                f'rank {rank} has {other} training images and rank 0 has '
                f'{int(lengths[0, 0])}, but all ranks share one memory bank '
                'with a row per image; give every machine the same data.'
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
    differ = _everyones(torch.stack(marks))
    differ = (differ != differ[0]).nonzero().tolist()
    if differ:
        rank, place = differ[0]
        raise FGCError(
            f'the {names[place]} on rank {rank} is not the one on rank 0, '
            'but every rank must write the same rows; run the same code, '
            'config and kind of device on all ranks, and resume from the '
            'last checkpoint.'
        )


def _everyones(own: Tensor) -> Tensor:
    return torch.stack(all_gather(own))
