"""A batch of a few images of a data set, as the model receives it."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from fgc_mm.errors import FGCError
from fgc_mm.reliability.seeded_batches import SeededBatches

IMAGES = 8


def first_batch(
    loader: DataLoader, name: str, most: int = IMAGES
) -> Any | None:
    """A batch of images at equal distances in the data set.

    The loader itself is not iterated over, so its sampler, its workers and
    the position in the epoch do not change.

    Args:
        loader: Data loader of the data set.
        name: Name of the data set in messages.
        most: Largest number of images.

    Returns:
        The result of the loader's ``collate_fn`` for these images; ``None``
        for a data set that can only be read in order.

    Raises:
        FGCError: The images differ in size, or are on a device although the
            loader pins memory.
    """
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset) or not len(dataset):
        return None
    count = min(most, loader.batch_size or most, len(dataset))
    chosen = [number * len(dataset) // count for number in range(count)]
    items = [dataset[index] for index in chosen]
    if loader.pin_memory:
        _check_can_be_pinned(items, name)
    try:
        return loader.collate_fn(items)
    except RuntimeError as error:
        sizes: list[Any] = [
            getattr(_inputs(item), 'shape', None) for item in items
        ]
        for index, size in zip(chosen, sizes):
            if None not in (size, sizes[0]) and size != sizes[0]:
                own, other = ('x'.join(map(str, s)) for s in (size, sizes[0]))
                raise FGCError(
                    f'image {index} of the {name} set leaves its pipeline as '
                    f'{own} and image {chosen[0]} as {other}: the images of a '
                    "batch must have one size; add dict(type='Resize', "
                    'scale=...) or a crop to the pipeline.'
                ) from error
        raise


def ends_with_one_image(loader: DataLoader) -> bool:
    """Whether the last batch of every epoch on this rank has one image."""
    batches, dataset = loader.batch_sampler, loader.dataset
    if isinstance(batches, SeededBatches):
        batches = batches.batches
    # subclasses may form their batches in another way
    if type(batches) is not BatchSampler or batches.drop_last:
        return False
    sampler = batches.sampler
    if isinstance(dataset, IterableDataset) or not isinstance(sampler, Sized):
        return False
    if isinstance(sampler, InfiniteSampler):  # has a length, but no end
        return False
    return batches.batch_size > 1 and len(sampler) % batches.batch_size == 1


def check_labels(batch: Any, head: nn.Module) -> None:
    """Check that training images have the labels that the head needs.

    Raises:
        FGCError: An image has no label, or several where there must be one.
    """
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(head, (ClsHead, MultiLabelClsHead)) or not samples:
        return
    for sample in samples:
        if sample.get('gt_score', None) is not None:
            continue
        label = sample.get('gt_label', None)
        if label is None:
            raise FGCError(
                f'an image of the train set ({_path(sample)}) has no '
                f'gt_label, which {type(head).__name__} needs; set '
                'with_label=True in the data set, and let PackInputs pack '
                'gt_label.'
            )
        if isinstance(head, ClsHead) and label.numel() != 1:
            raise FGCError(
                f'an image of the train set ({_path(sample)}) has the labels '
                f'{label.tolist()}, but {type(head).__name__} needs one per '
                'image; use a multi-label head (MultiLabelLinearClsHead).'
            )


def _check_can_be_pinned(items: list[Any], name: str) -> None:
    for inputs in map(_inputs, items):
        if isinstance(inputs, Tensor) and not inputs.is_cpu:
            raise FGCError(
                f'{name}_dataloader has pin_memory=True, but its images are '
                f'on {inputs.device}, whose memory cannot be pinned; set '
                f'{name}_dataloader.pin_memory=False.'
            )


def _inputs(item: Any) -> Any:
    return item.get('inputs') if isinstance(item, dict) else None


def _path(sample: Any) -> str:
    return str(sample.get('img_path', None) or 'no img_path')
