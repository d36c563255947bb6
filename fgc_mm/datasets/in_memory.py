"""Decodes all images of another data set once and keeps them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from fgc_mm.datasets.device_tensors import (
    check_fits,
    chosen_device,
    copy_sample,
    labels_of,
    set_labels,
)
from fgc_mm.errors import FGCError
from fgc_mm.functional import copied_to, on_device
from fgc_mm.registry import DATASETS


@DATASETS.register_module()
class InMemoryImages(Dataset):
    """Another data set's images as one uint8 tensor, augmented by the batch.

    Reading, decoding and augmenting small images one by one takes longer than
    training on them. Here the wrapped data set's pipeline runs once per image,
    when the first batch is read; after that a batch needs one index operation,
    one crop and one flip. The crop and flip use the generators that
    ``ExactResumeHook`` seeds for each batch, so a resumed run gets the same
    pixels. ``sample_idx`` and labels are those of the wrapped data set. Use it
    with ``num_workers=0``.

    With ``device='auto'`` every rank holds all images and labels on its GPU
    (CIFAR-10: 154 MB), and assembles batches there with a few kernel launches,
    without copying pixels from main memory. The pixels equal those of
    ``device='cpu'``.

    Args:
        dataset: Config of the wrapped data set, or the data set. Its
            pipeline must load images, resize them to one size and pack them,
            without random transforms.
        padding: Zeros added on every side before a random crop to the
            original size, in pixels; 0 for no crop.
        flip: Probability of a horizontal flip.
        device: Device of images and labels: ``'cpu'``, ``'auto'`` for that of
            the run, or its name.
        pipeline: Of the wrapped data set, if its config has none.
            mmpretrain's inferencers need it here.

    Items: ``inputs`` (C, H, W) uint8 and ``data_samples``, as ``PackInputs``
    makes them.

    Raises:
        FGCError: The padding is negative or ``flip`` is not a probability.
            When the images are read: the pipeline is random, does not pack,
            or gives several sizes; the images do not fit on the device, or a
            worker process cannot use it.
    """

    # options to set to 0 where training images must not be augmented
    AUGMENTATIONS = 'padding', 'flip'

    def __init__(
        self,
        dataset: dict | Dataset,
        padding: int = 0,
        flip: float = 0.0,
        device: str = 'cpu',
        pipeline: Sequence[dict] | None = None,
    ) -> None:
        if not isinstance(padding, int) or padding < 0 or not 0 <= flip <= 1:
            raise FGCError(
                f'padding={padding!r} and flip={flip!r} of InMemoryImages '
                'must be a whole number of pixels and a probability; write '
                'padding=4, flip=0.5, or 0 for neither.'
            )
        self.source: Any = _build(dataset, pipeline)
        self.padding, self.flip, self.device = padding, flip, device
        self._forget_images()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image, augmented."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A batch; ``DataLoader`` calls this instead of ``__getitem__``."""
        whole = self._read() if self._images is None else self._images
        indices, draws = _draw(indices)
        device = whole.device
        chosen = on_device(indices, device)
        images = whole.index_select(0, chosen)
        if self.padding or self.flip:
            draws = copied_to(draws, device)
            images = crop_and_flip(images, draws, self.padding, self.flip)
        # shape (N, C, H, W), channels-last in memory
        images = images.permute(0, 3, 1, 2)
        samples = [copy_sample(self._samples[index]) for index in indices]
        if self._labels is not None:
            set_labels(samples, self._labels.index_select(0, chosen))
        return [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(images, samples, strict=True)
        ]

    @property
    def pipeline(self) -> Any:
        """The wrapped data set's; images are read again with a new one."""
        return self.source.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        self.source.pipeline = pipeline
        self._forget_images()

    def get_subset_(self, indices: Any) -> None:
        """Keep some images only, as ``BaseDataset.get_subset_`` does."""
        self.source.get_subset_(indices)
        self._forget_images()

    def _forget_images(self) -> None:
        self._images: Tensor | None = None  # (D, H, W, C) uint8
        self._samples: list[Any] = []
        self._labels: Tensor | None = None  # (D, 1), on an accelerator

    def __getattr__(self, name: str) -> Any:
        """``metainfo``, ``get_gt_labels`` etc. of the wrapped data set."""
        if name == 'source':  # not set yet, while a copy is made
            raise AttributeError(name)
        return getattr(self.source, name)

    def _read(self) -> Tensor:
        device = chosen_device(self.device)
        first = _packed(self.source, 0)
        _refuse_random(self.source, first)
        shape = first['inputs'].shape
        channels, *pixels = shape
        images = torch.empty(len(self), *pixels, channels, dtype=torch.uint8)
        for index in range(len(self)):
            packed = _packed(self.source, index)
            _check_shape(packed['inputs'], shape, index)
            images[index] = packed['inputs'].permute(1, 2, 0)
            self._samples.append(packed['data_samples'])
        check_fits(images, device)
        self._images = images.to(device)
        if device.type != 'cpu':
            self._labels = labels_of(self._samples, device)
        return self._images


def _build(dataset: Any, pipeline: Sequence[dict] | None) -> Dataset:
    """The wrapped data set, with the pipeline."""
    built = isinstance(dataset, Dataset)
    if pipeline is None:
        return dataset if built else DATASETS.build(dataset)
    if built or 'pipeline' in dataset:
        raise FGCError(
            f'pipeline= of InMemoryImages has {len(pipeline)} steps, and the '
            'wrapped data set has a pipeline of its own; give one of them.'
        )
    return DATASETS.build(dict(dataset, pipeline=pipeline))


def _draw(indices: Sequence[int]) -> tuple[list[int], Tensor]:
    """The indices as numbers, and three random numbers for each; (N, 3).

    Drawn inside the loop, since a seeded batch seeds the generator only
    while it is iterated over.
    """
    numbers: list[int] = []
    draws = torch.empty(0, 3)
    for index in indices:
        if not numbers:
            draws = torch.rand(len(indices), 3)
        numbers.append(int(index))
    return numbers, draws


def _packed(source: Dataset, index: int) -> dict[str, Any]:
    item = source[index]
    pixels = item.get('inputs') if isinstance(item, dict) else None
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8:
        raise FGCError(
            f'the pipeline returns image {index} as '
            f'{getattr(pixels, "dtype", type(pixels).__name__)}, but '
            'InMemoryImages keeps uint8 tensors; end the pipeline with '
            "dict(type='PackInputs') and leave normalisation to "
            'data_preprocessor.'
        )
    return item


def _check_shape(pixels: Tensor, shape: torch.Size, index: int) -> None:
    if pixels.shape != shape:
        raise FGCError(
            f'image {index} has the shape {tuple(pixels.shape)} and image 0 '
            f'{tuple(shape)}, but InMemoryImages keeps images of one size; '
            "add dict(type='Resize', scale=(width, height)) to the pipeline."
        )


def _refuse_random(source: Dataset, first: dict[str, Any]) -> None:
    """Load the first image eight more times; the pixels must be equal."""
    for _ in range(8):
        again = _packed(source, 0)['inputs']
        if not torch.equal(first['inputs'], again):
            raise FGCError(
                'the pipeline returns different pixels for image 0 each '
                'time, but InMemoryImages reads every image once; remove '
                'random transforms and set padding and flip of '
                'InMemoryImages instead.'
            )


def crop_and_flip(
    images: Tensor, draws: Tensor, padding: int, flip: float
) -> Tensor:
    """Pad each image with zeros, crop it to its size and flip it at random.

    The same as ``RandomCrop(crop_size=(H, W), padding=padding)`` and
    ``RandomFlip(prob=flip)`` of mmpretrain, which process single images.

    Args:
        images: (N, H, W, C).
        draws: (N, 3) uniform in [0, 1): row and column of the crop, flip.
        padding: Pixels added on every side before the crop.
        flip: Probability of a horizontal flip.

    Returns:
        (N, H, W, C), a new tensor.
    """
    count, height, width, _ = images.shape
    padded = pad(images, (0, 0, padding, padding, padding, padding))
    offsets = (draws[:, :2] * (2 * padding + 1)).long()
    device = images.device
    rows = offsets[:, :1] + torch.arange(height, device=device)
    steps = torch.arange(width, device=device)
    flipped = draws[:, 2:] < flip
    columns = offsets[:, 1:] + torch.where(flipped, width - 1 - steps, steps)
    image = torch.arange(count, device=device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]
