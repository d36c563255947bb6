"""Resizing 8-bit images with the same values as OpenCV and Pillow."""

from __future__ import annotations

import numpy as np

from fgc_mm.errors import FGCError

_BITS = 11  # fixed-point weights in OpenCV
CV2 = ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos')
PILLOW = ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming')
INTERPOLATIONS = {'cv2': CV2, 'pillow': PILLOW}  # of every backend


def resize(
    picture: np.ndarray,
    size: tuple[int, int],
    interpolation: str = 'bilinear',
    backend: str = 'cv2',
) -> np.ndarray:
    """Resize an image.

    Args:
        picture: (H, W) or (H, W, C) uint8.
        size: New height and width.
        interpolation: One of ``CV2`` or ``PILLOW``.
        backend: ``'cv2'`` or ``'pillow'``, whose results are reproduced bit
            for bit. ``'cv2'`` needs OpenCV except for nearest and bilinear.

    Raises:
        FGCError: The backend has no such interpolation, or is needed but not
            installed.
    """
    if interpolation not in INTERPOLATIONS.get(backend, ()):
        raise FGCError(
            f'interpolation={interpolation!r} of {backend!r} is unknown; '
            f'resize with one of {", ".join(CV2)} of cv2, or of '
            f'{", ".join(PILLOW)} of pillow.'
        )
    if backend == 'pillow':
        return _by_pillow(picture, size, interpolation)
    if interpolation == 'bilinear':
        return _bilinear(picture, *size)
    if interpolation == 'nearest':
        rows, columns = map(_nearest, size, picture.shape)
        return picture[rows][:, columns]
    return _by_opencv(picture, size, interpolation)


def _bilinear(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = picture.shape[:2]
    if (rows, columns) == (2 * height, 2 * width):  # mean of four pixels
        wide = picture.astype(np.int32)
        total = wide[::2, ::2] + wide[1::2, ::2]
        total += wide[::2, 1::2] + wide[1::2, 1::2]
        return ((total + 2) >> 2).astype(np.uint8)
    left, right, *across = _weights(width, columns, stop=True)
    above, below, *down = _weights(height, rows, stop=False)
    shape = (-1, *[1] * (picture.ndim - 1))
    total = np.full((), 2)
    for at, weight in zip((above, below), down):
        line = picture[at].astype(np.int64)
        across_ = [w.reshape(shape[:-1]) for w in across]
        line = line[:, left] * across_[0] + line[:, right] * across_[1]
        total = total + (((line >> 4) * weight.reshape(shape)) >> 16)
    return (total >> 2).astype(np.uint8)


def _weights(new: int, old: int, stop: bool) -> tuple[np.ndarray, ...]:
    """Both neighbours of every new pixel, and their weights.

    Args:
        new: Pixels of the result.
        old: Pixels of the image.
        stop: Whether an edge pixel gets the full weight beyond the edge;
            otherwise it gets both neighbours' weights, rounded separately.
    """
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    position = position.astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if stop:
        share[(first < 0) | (first >= old - 1)] = 0
    one = np.float32(1 << _BITS)
    weights = (np.float32(1) - share) * one, share * one
    return (
        np.clip(first, 0, old - 1),
        np.clip(first + 1, 0, old - 1),
        *(np.rint(weight).astype(np.int64) for weight in weights),
    )


def _nearest(new: int, old: int) -> np.ndarray:
    indices = np.floor(np.arange(new) * (1 / (new / old))).astype(np.int64)
    return np.minimum(indices, old - 1)


def _by_opencv(
    picture: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    try:
        import cv2
    except ImportError as error:
        raise FGCError(
            f"the file resizes images with OpenCV's {interpolation!r}, but "
            'OpenCV is not installed; run `pip install '
            'opencv-python-headless`.'
        ) from error
    codes = {
        'bicubic': cv2.INTER_CUBIC,
        'area': cv2.INTER_AREA,
        'lanczos': cv2.INTER_LANCZOS4,
    }
    return cv2.resize(picture, size[::-1], interpolation=codes[interpolation])


def _by_pillow(
    picture: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise FGCError(
            'the file resizes images with Pillow, but it is not installed; '
            'run `pip install pillow`.'
        ) from error
    code = getattr(Image.Resampling, interpolation.upper())
    return np.array(Image.fromarray(picture).resize(size[::-1], code))
