"""Preprocessing of images, as set in the file's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgc_mm.errors import FGCError
from fgc_mm.runtime.errors import RuntimeFileError
from fgc_mm.runtime.resizing import resize


def preprocess(picture: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Preprocess one image.

    Args:
        picture: (H, W, 3) uint8 in RGB order; (H, W) for a network of grey
            images.
        settings: ``preprocessing`` of the file's JSON.

    Returns:
        (C, H, W) float32, with the same values as the config's test pipeline
        and data preprocessor.

    Raises:
        FGCError: The image has another size than the network's after the
            steps.
        RuntimeFileError: An unknown step.
    """
    for step in settings['steps']:
        picture = _step(picture, step)
    height, width = settings['size']
    if picture.shape[:2] != (height, width):
        raise FGCError(
            f'the image has {picture.shape[1]} x {picture.shape[0]} pixels '
            'after preprocessing, but the network needs '
            f'{width} x {height}; resize it to that.'
        )
    if settings['channel_order'] == 'bgr':
        picture = picture[:, :, ::-1]
    planes = picture.reshape(height, width, -1).transpose(2, 0, 1)
    result = planes.astype(np.float32, order='C')
    if settings['mean'] is not None:
        mean, std = (
            np.array(settings[key], np.float32).reshape(-1, 1, 1)
            for key in ('mean', 'std')
        )
        result = (result - mean) / std
    return result


def _step(picture: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    if 'resize' in step:
        options = step['resize']
        size = new_size(picture.shape[:2], options)
        if 0 in size:
            raise FGCError(
                f'the image has {picture.shape[1]} x {picture.shape[0]} '
                f'pixels, which become {size[1]} x {size[0]}; give one that '
                'is less narrow.'
            )
        return resize(
            picture, size, options['interpolation'], options['backend']
        )
    if 'crop' in step:
        return _crop(picture, *step['crop'])
    raise RuntimeFileError(
        f'the preprocessing has the step {", ".join(step)!r}, which this '
        'version does not support; update fgc_mm.'
    )


def new_size(
    size: tuple[int, int], options: Mapping[str, Any]
) -> tuple[int, int]:
    """Height and width after a resize step.

    Args:
        size: Height and width before.
        options: Options of the step. With ``edge`` ``'short'``, ``'long'``,
            ``'width'`` or ``'height'`` this edge becomes ``size`` pixels
            long; ``'both'`` sets height and width to ``size``; ``'within'``
            keeps the aspect ratio, as large as fits (in either orientation)
            into ``size``.
    """
    (height, width), wanted = size, options['size']
    edge = options['edge']
    if edge == 'both':
        return tuple(wanted)
    if edge == 'within':
        scale = min(
            max(wanted) / max(height, width), min(wanted) / min(height, width)
        )
        return int(height * scale + 0.5), int(width * scale + 0.5)
    if (
        edge == 'width'
        or (edge == 'short' and width < height)
        or (edge == 'long' and width > height)
    ):
        return int(wanted * height / width), wanted
    return wanted, int(wanted * width / height)


def size_after(
    steps: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> tuple[int, int]:
    """Height and width after some steps of :func:`preprocess`."""
    for step in steps:
        if 'resize' in step:
            size = new_size(size, step['resize'])
        else:
            size = tuple(map(min, step['crop'], size))
    return size


def _crop(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centre crop; an edge that is shorter than the crop is not changed."""
    rows, columns = picture.shape[:2]
    top = max(0, round((rows - min(height, rows)) / 2))
    left = max(0, round((columns - min(width, columns)) / 2))
    return picture[top : top + height, left : left + width]
