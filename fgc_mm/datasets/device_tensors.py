"""Images and labels of a data set as tensors on a device."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from mmengine.device import get_device
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import get_worker_info

from fgc_mm.errors import FGCError

# sets of field names in a BaseDataElement
_FIELDS = '_metainfo_fields', '_data_fields'


def chosen_device(name: str) -> torch.device:
    """The device for the ``device`` option of a data set.

    Raises:
        FGCError: There is no such device, or a worker process cannot use it.
    """
    try:
        device = torch.device(get_device() if name == 'auto' else name)
    except (RuntimeError, TypeError) as error:
        raise FGCError(
            f'device={name!r} of InMemoryImages is not a device of torch; '
            "write 'auto' for the device of the run, or 'cpu'."
        ) from error
    if device.type != 'cpu' and get_worker_info() is not None:
        raise FGCError(
            f'device={name!r} of InMemoryImages puts the images on {device}, '
            "which the data loader's worker processes cannot use; set "
            'num_workers=0, persistent_workers=False.'
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise FGCError(
            f'device={name!r} of InMemoryImages does not exist on this '
            "machine; write 'auto' for the device of the run, or 'cpu'."
        ) from error
    return device


def check_fits(images: Tensor, device: torch.device) -> None:
    """Raise FGCError if the images do not fit on a GPU."""
    if device.type != 'cuda':
        return
    size, (free, _) = images.numel(), torch.cuda.mem_get_info(device)
    # what torch holds, but does not use
    free += torch.cuda.memory_reserved(device)
    free -= torch.cuda.memory_allocated(device)
    if size > free:
        raise FGCError(
            f'the images take {size / 2**30:.1f} GiB and {device} has '
            f'{free / 2**30:.1f} GiB free; leave out device of '
            'InMemoryImages to keep them in main memory.'
        )


def labels_of(samples: Sequence[Any], device: torch.device) -> Tensor | None:
    """All labels as (D, 1), if every sample has exactly one."""
    labels = [
        sample.get('gt_label', None)
        for sample in samples
        if type(sample) is DataSample
    ]
    single = all(isinstance(x, Tensor) and x.shape == (1,) for x in labels)
    if len(labels) < len(samples) or not single:
        return None
    return torch.stack(labels).to(device)


def copy_sample(sample: Any) -> Any:
    """A copy of a sample that shares its values.

    The same as ``sample.new()``, but ten times as fast.
    """
    if type(sample) is not DataSample:
        return sample.new()
    duplicate = copy(sample)
    for name in _FIELDS:
        object.__setattr__(duplicate, name, set(getattr(sample, name)))
    return duplicate


def set_labels(samples: Sequence[DataSample], labels: Tensor) -> None:
    """Give each sample its row of (N, 1) labels."""
    for sample, label in zip(samples, labels.unbind(), strict=True):
        # an existing field, whose type need not be checked again
        object.__setattr__(sample, 'gt_label', label)
