"""Reads an image file as 8 bits per channel; errors name the file."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from PIL import Image

from fgc_mm.errors import FGCError
from fgc_mm.registry import TRANSFORMS

# what decoders raise for a damaged file
DECODING = AssertionError, ValueError, OSError, SyntaxError, cv2.error
_UNCHANGED = 'unchanged', cv2.IMREAD_UNCHANGED


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` for 16-bit images; errors name the file.

    OpenCV keeps the upper 8 of 16 bits, so an image with 10, 12 or 14 bits in
    a 16-bit file would become almost black without a warning.

    Args:
        bits: Number of bits used in a 16-bit image, 8 to 16; values are
            divided by ``2 ** (bits - 8)``. ``None``: 16, and an image in
            which the highest bit is never set is an error.
        **kwargs: As in ``LoadImageFromFile``, which raises an error for
            unknown ones.

    Raises:
        FGCError: ``bits`` is outside its range, or the decoder is not
            installed or does not support ``bits``.
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
        _check_backend(self.imdecode_backend, bits)
        self.bits = bits
        # decoded with all bits, converted to 8 bits, then to float if asked
        self.as_float, self.to_float32 = self.to_float32, False
        flag = imread_flags.get(self.color_type, self.color_type)
        if self.imdecode_backend == 'cv2' and flag != cv2.IMREAD_UNCHANGED:
            self.color_type = flag | cv2.IMREAD_ANYDEPTH

    def transform(self, results: dict) -> dict | None:
        """As in ``LoadImageFromFile``; a loaded image is not changed.

        mmpretrain's inferencers load the image themselves, but remove only a
        transform with upstream's name from the pipeline.

        Raises:
            FGCError: The file is not an image, or is damaged, has 32 bits per
                channel, has 16 bits of which fewer are used, or has more
                than 8 bits and would be read by Pillow.
        """
        if 'img' in results and 'img_path' not in results:
            return results
        path = results['img_path']
        if self.imdecode_backend == 'pillow' and self._bits(path) > 8:
            raise FGCError(
                f'{path} has more than 8 bits per channel, and Pillow would '
                'clip its values: LoadImage reads such files with OpenCV '
                "only; leave out imdecode_backend='pillow'."
            )
        try:
            loaded = super().transform(results)
        except DECODING as error:
            # an error of the file system has a number
            if getattr(error, 'errno', None) is not None:
                raise
            raise self._decoding_error(path) from error
        if loaded is None:
            return None
        if self.color_type not in _UNCHANGED:
            loaded['img'] = _to_8_bits(loaded['img'], self.bits, path)
        if self.as_float:
            loaded['img'] = loaded['img'].astype(np.float32)
        return loaded

    def _decoding_error(self, path: str) -> FGCError:
        if self._bits(path) > 16:
            return FGCError(
                f'{path} has 32 bits per channel, but images must have 8 or '
                '16; convert it.'
            )
        return FGCError(
            f'{path} cannot be decoded: every file of the data set must be a '
            'complete image; replace or remove it.'
        )

    def _bits(self, path: str) -> int:
        """Bits per channel by the file's header: 8, 16 or 32."""
        if self.file_client_args is not None:
            return 8
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            image = Image.open(BytesIO(content))  # reads the header only
        except Exception:  # reported, or ignored, by transform()
            return 8
        with image:
            if ';16' in image.mode + str(image.tile):
                return 16
            return 32 if image.mode in ('I', 'F') else 8


def _check_backend(backend: str, bits: int | None) -> None:
    """Refuse a decoder that is not installed or does not support ``bits``."""
    if backend in ('tifffile', 'turbojpeg') and not find_spec(backend):
        raise FGCError(
            f'imdecode_backend={backend!r} of LoadImage needs the package '
            f'{backend}, which is not installed; install it, or leave out '
            'imdecode_backend.'
        )
    if bits is not None and backend == 'pillow':
        raise FGCError(
            f'bits={bits} of LoadImage has no effect with imdecode_backend='
            "'pillow', which reads 8 bits only; leave out one of them."
        )


def _to_8_bits(image: np.ndarray, bits: int | None, path: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise FGCError(
            f'{path} has {image.dtype} values, but images must have 8 or 16 '
            'bits per channel; convert it.'
        )
    brightest = int(image.max())
    if bits is None and 0 < brightest < 2**15:
        raise FGCError(
            f'{path} has 16-bit values up to {brightest}, which would be '
            f'read as 0 to {brightest >> 8} of 255: the number of used bits '
            "must be given; write dict(type='fgc_mm.LoadImage', bits="
            f'{_usual(brightest)}), or bits=16 if the image is that dark.'
        )
    if bits is not None and brightest >= 2**bits:
        raise FGCError(
            f'{path} has the value {brightest}, but bits={bits} of '
            f'LoadImage allows 0 to {2**bits - 1}; set a larger number.'
        )
    return (image >> ((bits or 16) - 8)).astype(np.uint8)


def _usual(brightest: int) -> int:
    """The smallest usual number of bits that can represent a value."""
    return next(bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)
