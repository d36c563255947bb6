"""The data set of an analysis, and pictures of its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from fgc_mm.type_name import type_name

from ..deploy.loading import build_dataset, test_pipeline
from ..errors import FGCError


def load_dataset(cfg: Config, split: str) -> Any:
    """The images of a split (``'test'`` or ``'train'``), not augmented.

    Raises:
        FGCError: The data set is missing or empty.
    """
    dataset = build_dataset(cfg, split)
    if not len(dataset):
        raise FGCError(
            f'the {split} set of {cfg.filename} has no image, so there is '
            'nothing to analyse; check data_root and data_prefix.'
        )
    return dataset


def choose_images(total: int, count: int | None) -> Sequence[int]:
    """Indices at equal distances, since sets are often sorted by class.

    All ``total`` indices if the count is ``None`` or larger.

    Raises:
        FGCError: ``count`` is less than 1.
    """
    if count is None or count >= total:
        return range(total)
    if count < 1:
        raise FGCError(
            f'--images {count} leaves nothing to analyse; give a positive '
            'number, or leave it out for all images.'
        )
    return [number * total // count for number in range(count)]


@dataclass(frozen=True)
class Pictures:
    """Images for display: as loaded, before normalisation.

    Attributes:
        dataset: Its items have ``inputs`` (3 or 1, H, W).
        bgr: Whether their channels are blue, green, red.
    """

    dataset: Any
    bgr: bool

    def __call__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 of one image.

        Raises:
            FGCError: It cannot be read, or is not a picture.
        """
        try:
            pixels = self.dataset[index]['inputs']
        except (FGCError, OSError) as error:
            raise _no_picture(index, error) from error
        if not isinstance(pixels, Tensor) or pixels.dim() != 3:
            raise _no_picture(index, f'it is a {type(pixels).__name__}')
        if pixels.shape[0] not in (1, 3):
            raise _no_picture(index, f'it has {pixels.shape[0]} channels')
        # a data set may hold its images on a GPU
        picture = _to_bytes(pixels.cpu()).expand(3, -1, -1)
        if self.bgr and pixels.shape[0] == 3:
            picture = picture.flip(0)
        return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def pictures_of(cfg: Config, dataset: Any) -> Pictures:
    """Pictures of a config's images, in the right channel order.

    Files are read as blue, green, red (OpenCV's order); data sets with decoded
    images have red, green, blue.
    """
    settings = cfg.get('data_preprocessor') or {}
    settings = settings | (cfg.model.get('data_preprocessor') or {})
    loaded = any('Load' in type_name(step) for step in test_pipeline(cfg))
    return Pictures(dataset, bool(settings.get('to_rgb')) or loaded)


def _to_bytes(pixels: Tensor) -> Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    # normalised in the pipeline: only the range can be restored
    pixels = pixels.float()
    low, high = pixels.min(), pixels.max()
    return ((pixels - low) / (high - low).clamp(min=1e-12) * 255).byte()


def _no_picture(index: int, why: object) -> FGCError:
    text = ' '.join(str(why).split()).rstrip('.')
    return FGCError(
        f'image {index} cannot be shown ({text}), but the report has '
        'pictures of single images; repair the data set, or give '
        '--no-pictures.'
    )
