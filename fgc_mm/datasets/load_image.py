"""Reading an image file as 8 bits per channel, with its name in errors."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile

from fgc_mm.errors import FGCError
from fgc_mm.registry import TRANSFORMS

_UNCHANGED = 'unchanged', cv2.IMREAD_UNCHANGED


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` that names the file and knows 16-bit images.

    OpenCV keeps the upper 8 of 16 bits, so that data of 10, 12 or 14 bits in
    a 16-bit file would become almost black without a word.

    Args:
        bits: How many bits of a 16-bit image are used, 8 to 16; its values
            are divided by ``2 ** (bits - 8)``. ``None``: 16, and an image
            that never sets the upper bit is refused.
        **kwargs: As in ``LoadImageFromFile``; an unknown one is refused
            there.

    Raises:
        FGCError: ``bits`` is outside its range.
    """

    to_float32: bool
    color_type: Any

    def __init__(self, bits: int | None = None, **kwargs: Any) -> None:
        if bits is not None and bits not in range(8, 17):
            raise FGCError(
                f'bits={bits!r} of LoadImage must be a whole number from 8 '
                'to 16: the bits per channel that a 16-bit image uses.'
            )
        super().__init__(**kwargs)
        self.bits = bits
        # decoded at its whole depth, made 8 bits here, then what is asked for
        self.as_float, self.to_float32 = self.to_float32, False
        flag = imread_flags.get(self.color_type, self.color_type)
        if self.imdecode_backend == 'cv2' and flag != cv2.IMREAD_UNCHANGED:
            self.color_type = flag | cv2.IMREAD_ANYDEPTH

    def transform(self, results: dict) -> dict | None:
        """As in ``LoadImageFromFile``; what is loaded already stays.

        mmpretrain's inferencers load the image themselves, and take only a
        transform of upstream's name out of the pipeline.

        Raises:
            FGCError: The file is no image, a damaged one, one of floating
                point numbers, or one of 16 bits that uses fewer.
        """
        if 'img' in results and 'img_path' not in results:
            return results
        path = results['img_path']
        try:
            loaded = super().transform(results)
        except (AssertionError, ValueError, cv2.error) as error:
            raise FGCError(
                f'{path} cannot be decoded: every file of the '
                'data set is a whole image; replace or remove it.'
            ) from error
        if loaded is not None and self.color_type not in _UNCHANGED:
            loaded['img'] = _to_8_bits(loaded['img'], self.bits, path)
        if loaded is not None and self.as_float:
            loaded['img'] = loaded['img'].astype(np.float32)
        return loaded


def _to_8_bits(image: np.ndarray, bits: int | None, path: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise FGCError(
            f'{path} holds {image.dtype} values: images have 8 or 16 bits '
            'per channel; convert it.'
        )
    brightest = int(image.max())
    if bits is None and 0 < brightest < 2**15:
        raise FGCError(
            f'{path} holds 16-bit values up to {brightest}, which would be '
            f'read as 0 to {brightest >> 8} of 255: the bits in use have to '
            "be known; write dict(type='fgc_mm.LoadImage', bits="
            f'{_usual(brightest)}), or bits=16 if the image is that dark.'
        )
    if bits is not None and brightest >= 2**bits:
        raise FGCError(
            f'{path} holds the value {brightest}, but bits={bits} of '
            f'LoadImage allows 0 to {2**bits - 1}; give a larger bits.'
        )
    return (image >> ((bits or 16) - 8)).astype(np.uint8)


def _usual(brightest: int) -> int:
    """The smallest of the usual depths that holds a value."""
    return next(bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)
