"""Checks of what memory banks need: one row per image, equal on all ranks."""

from collections.abc import Sized
from typing import NamedTuple

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather, get_world_size
from mmengine.model import BaseModel
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional import fingerprint
from fgc_mm.losses import FeatureGateCouplingLoss


def check_unwrapped(dataset: BaseDataset) -> None:
    """Refuse a wrapped data set, and one without a length.

    Only an unwrapped one has exactly one index per image.

    Raises:
        FGCError: The data set wraps others (``ConcatDataset``,
            ``RepeatDataset``, ``ClassBalancedDataset``, ``Subset``, ...), or
            its number of images is unknown.
    """
    if not isinstance(dataset, Sized):
        raise FGCError(
            f'the training set is a {type(dataset).__name__} without a '
            'length, but the memory banks have one row per image; use a data '
            'set with a length, or no FeatureGateCouplingLoss.'
        )
    if hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        raise FGCError(
            f'the training set is a {type(dataset).__name__}, in which '
            'sample_idx is not unique, or not contiguous, but the memory '
            'banks have one row per image; use an unwrapped data set (to '
            'train on a subset, use its `indices` option).'
        )


def check_unmixed(model: BaseModel) -> None:
    """Refuse Mixup, CutMix and other batch augments that mix images.

    Raises:
        FGCError: The data preprocessor has one.
    """
    augments = getattr(model.data_preprocessor, 'batch_augments', None)
    # mmdet's batch augments, which only pad and resize, have no such list
    kinds = [type(a).__name__ for a in getattr(augments, 'augments', ())]
    if kinds:
        raise FGCError(
            f'{" and ".join(kinds)} mixes images, but a row of the memory '
            'banks belongs to one image; remove the batch augments from '
            'train_cfg or data_preprocessor.'
        )


def check_same_length(length: int, device: torch.device) -> None:
    """Check that all ranks have the same number of training images.

    Raises:
        FGCError: A rank has another number; all ranks raise it.
    """
    found = find_difference(torch.tensor([length], device=device))
    if found is not None:
        raise FGCError(
            f'rank {found.rank} has {found.value} training images and rank 0 '
            f'has {found.expected}, but all ranks share one memory bank with '
            'a row per image; give every machine the same data.'
        )


def check_same_banks(loss: FeatureGateCouplingLoss) -> None:
    """Check that banks replicated on every rank are equal bit by bit.

    Takes one collective with one number per bank. Sharded banks are not
    replicated, so they are not compared.

    Raises:
        FGCError: A rank's rows differ from rank 0's; all ranks raise it.
    """
    if get_world_size() == 1:
        return
    checksums = {
        f'{kind} bank of {site}': fingerprint(bank.rows)
        for site, banks in loss.banks.items()
        for kind, bank in banks._asdict().items()
    }
    found = find_difference(torch.stack([*checksums.values()]))
    if found is not None:
        raise FGCError(
            f'the {[*checksums][found.position]} on rank {found.rank} differs '
            'from that on rank 0, but all ranks must hold the same rows; run '
            'the same code, config and kind of device on all ranks, and '
            'resume from the last checkpoint.'
        )


class Difference(NamedTuple):
    """A number of the first rank that differs from rank 0's."""

    rank: int
    position: int  # of the number in the vector
    value: float
    expected: float  # the number on rank 0


def find_difference(own: Tensor) -> Difference | None:
    """Compares a vector of every rank with that of rank 0, by one collective.

    Args:
        own: (N,) on the device of the process group's tensors; all ranks
            call this with the same N.

    Returns:
        The first difference, the same on all ranks; None if there is none.
    """
    if get_world_size() == 1:
        return None
    table = torch.stack(all_gather(own))
    different = (table != table[0]).nonzero().tolist()
    if not different:
        return None
    rank, position = different[0]
    value, expected = table[[rank, 0], position].tolist()
    return Difference(rank, position, value, expected)
