"""All images of another data set, decoded once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fgc_mm.datasets.batch_augment import crop_and_flip
from fgc_mm.datasets.held import (
    check_fits,
    chosen_device,
    fresh,
    labels_of,
    set_labels,
)
from fgc_mm.errors import FGCError
from fgc_mm.functional import on_device
from fgc_mm.registry import DATASETS


@DATASETS.register_module()
class InMemoryImages(Dataset):
    """Another data set's images as one uint8 tensor, augmented by the batch.

    Small images cost more to read, decode and augment one by one than to
    train on. Here the wrapped data set's pipeline runs once per image, when
    the first batch is read, and a batch is one look-up, crop and flip. It is
    drawn from the generators that ``ExactResumeHook`` seeds per batch, so a
    resumed run sees the same pixels. ``sample_idx`` and labels are the
    wrapped data set's. Use it with ``num_workers=0``.

    With ``device='auto'`` all images and labels lie on the GPU (CIFAR-10:
    154 MB), each rank's on its own, and a batch is put together there: a few
    launches, no copy of pixels. The pixels are those of ``device='cpu'``.

    Args:
        dataset: Config of the wrapped data set, or the data set. Its
            pipeline loads, resizes to one size and packs; nothing random.
        padding: Zeros added on every side before a random crop to the
            images' own size, in pixels; 0 for no crop.
        flip: Probability of a horizontal flip.
        device: Where images and labels lie: ``'cpu'``, ``'auto'`` for the
            device that the run computes on, or its name.

    Items: ``inputs`` (C, H, W) uint8 and ``data_samples``, as ``PackInputs``
    makes them.

    Raises:
        FGCError: A negative padding, a flip that is no probability; when the
            images are read, a pipeline that is random, does not pack, or
            gives several sizes, a device on which the images do not fit, or
            which a worker process cannot use.
    """

    def __init__(
        self,
        dataset: dict | Dataset,
        padding: int = 0,
        flip: float = 0.0,
        device: str = 'cpu',
    ) -> None:
        if not isinstance(padding, int) or padding < 0 or not 0 <= flip <= 1:
            raise FGCError(
                f'padding={padding!r} and flip={flip!r} of InMemoryImages '
                'must be a whole number of pixels and a probability; write '
                'padding=4, flip=0.5, or 0 for neither.'
            )
        built = isinstance(dataset, Dataset)
        self.source: Any = dataset if built else DATASETS.build(dataset)
        self.padding, self.flip, self.device = padding, flip, device
        self._images: Tensor | None = None  # (D, H, W, C) uint8
        self._samples: list[Any] = []
        self._labels: Tensor | None = None  # (D, 1), on an accelerator

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image, augmented."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A batch; ``DataLoader`` prefers this to image by image."""
        whole = self._read() if self._images is None else self._images
        indices, draws = _drawn(indices)
        device = whole.device
        chosen = on_device(indices, device)
        images = whole.index_select(0, chosen)
        if self.padding or self.flip:
            draws = draws.to(device, non_blocking=True)
            images = crop_and_flip(images, draws, self.padding, self.flip)
        # channels first to look at, channels last in memory
        images = images.permute(0, 3, 1, 2)
        samples = [fresh(self._samples[index]) for index in indices]
        if self._labels is not None:
            set_labels(samples, self._labels.index_select(0, chosen))
        return [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(images, samples, strict=True)
        ]

    def __getattr__(self, name: str) -> Any:
        """``metainfo``, ``get_gt_labels`` and so on are the wrapped one's."""
        if name == 'source':  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.source, name)

    def _read(self) -> Tensor:
        device = chosen_device(self.device)
        first = _packed(self.source, 0)
        _refuse_random(self.source, first)
        shape = first['inputs'].shape
        height, width = shape[1:]
        images = torch.empty(
            len(self), height, width, shape[0], dtype=torch.uint8
        )
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


def _drawn(indices: Sequence[int]) -> tuple[list[int], Tensor]:
    """The indices as numbers, and three draws for each; (N, 3).

    A seeded batch seeds the generator while it is iterated over.
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
            f'image {index} comes out of the pipeline as '
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
    """Eight more looks at the first image must show the same pixels."""
    for _ in range(8):
        again = _packed(source, 0)['inputs']
        if not torch.equal(first['inputs'], again):
            raise FGCError(
                'image 0 comes out of the pipeline with other pixels each '
                'time, but InMemoryImages reads every image once; remove '
                'random transforms and set padding and flip of '
                'InMemoryImages instead.'
            )
