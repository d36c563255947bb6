"""A few images of a data set, as the model would get them."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from fgc_mm.errors import FGCError

IMAGES = 8


def first_batch(loader: DataLoader, name: str) -> Any | None:
    """A batch of images from all over the data set.

    The loader itself is not read: its sampler, its workers and the place in
    the epoch stay as they are.

    Args:
        loader: Of the data set.
        name: Of the data set, for messages.

    Returns:
        What the loader's ``collate_fn`` makes of up to 8 images; ``None``
        for a data set that can only be read in its own order.

    Raises:
        FGCError: The images are of unequal size.
    """
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset) or not len(dataset):
        return None
    count = min(IMAGES, loader.batch_size or IMAGES, len(dataset))
    chosen = [number * len(dataset) // count for number in range(count)]
    items = [dataset[index] for index in chosen]
    try:
        return loader.collate_fn(items)
    except RuntimeError as error:
        sizes = [_size(item) for item in items]
        for index, size in zip(chosen, sizes):
            if None not in (size, sizes[0]) and size != sizes[0]:
                raise FGCError(
                    f'image {index} of the {name} set leaves its pipeline as '
                    f'{_written(size)} and image {chosen[0]} as '
                    f'{_written(sizes[0])}: the images of a batch have one '
                    "size; add dict(type='Resize', scale=...) or a crop to "
                    'the pipeline.'
                ) from error
        raise


def check_labels(batch: Any, head: nn.Module) -> None:
    """Whether training images have labels of the kind that the head learns.

    Raises:
        FGCError: An image has none, or several where there must be one.
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
                f'gt_label, which {type(head).__name__} learns; give the '
                'data set labels (with_label=True), and PackInputs its label.'
            )
        if isinstance(head, ClsHead) and label.numel() != 1:
            raise FGCError(
                f'an image of the train set ({_path(sample)}) has the labels '
                f'{label.tolist()}, but {type(head).__name__} learns one per '
                'image; take a multi-label head (MultiLabelLinearClsHead).'
            )


def _size(item: Any) -> tuple[int, ...] | None:
    inputs: Any = item.get('inputs') if isinstance(item, dict) else None
    return tuple(inputs.shape) if hasattr(inputs, 'shape') else None


def _written(size: Any) -> str:
    return 'x'.join(map(str, size))


def _path(sample: Any) -> str:
    return str(sample.get('img_path', None) or 'no img_path')
