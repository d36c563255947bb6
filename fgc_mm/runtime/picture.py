"""Reading picture files, by Pillow or else by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgc_mm.errors import FGCError


def read_picture(
    path: str | Path, grey: bool = False, bits: int | None = 16
) -> np.ndarray:
    """The pixels of a picture file, turned as its EXIF data say.

    Args:
        path: Of the file.
        grey: Brightness only.
        bits: How many bits of a 16-bit picture are used; ``None``: a picture
            that never sets the highest bit is refused.

    Returns:
        (H, W, 3) uint8 in the order red, green, blue, or (H, W); the numbers
        that OpenCV reads.

    Raises:
        FGCError: Neither Pillow nor OpenCV is installed, or the file is no
            picture.
        OSError: The file cannot be read.
    """
    content = Path(path).read_bytes()
    pixels = _decoded(content, grey)
    if pixels is None:
        raise FGCError(
            f'{path} cannot be decoded; give the file of a whole picture, a '
            'JPEG or PNG for example.'
        )
    return _to_8_bits(pixels, bits, path)


def _decoded(content: bytes, grey: bool) -> np.ndarray | None:
    try:
        from PIL import Image
    except ImportError:
        return _by_opencv(content, grey)
    return _by_pillow(Image, content, grey)


def _by_pillow(image: Any, content: bytes, grey: bool) -> np.ndarray | None:
    from io import BytesIO

    from PIL import ImageOps

    try:
        picture = image.open(BytesIO(content))
        if grey:
            picture.draft('L', picture.size)  # what a JPEG has of its own
        picture = ImageOps.exif_transpose(picture)
        if picture.mode == 'I' or picture.mode.startswith('I;16'):
            return _with_colours(np.array(picture), grey)
        if grey and picture.mode == 'L':
            return np.array(picture)
        pixels = np.array(picture.convert('RGB'))
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError):
        return None
    return _brightness(pixels) if grey else pixels


def _by_opencv(content: bytes, grey: bool) -> np.ndarray | None:
    try:
        import cv2
    except ImportError as error:
        raise FGCError(
            'pictures are read by Pillow or OpenCV, and neither is '
            'installed; run `pip install pillow`.'
        ) from error
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        pixels = cv2.imdecode(
            np.frombuffer(content, np.uint8), flag | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error:  # an empty file
        return None
    if pixels is None or grey:
        return pixels
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _with_colours(pixels: np.ndarray, grey: bool) -> np.ndarray:
    pixels = pixels.astype(np.uint16)
    return pixels if grey else np.repeat(pixels[:, :, None], 3, axis=2)


def _brightness(pixels: np.ndarray) -> np.ndarray:
    """As OpenCV's reader of PNG files has it."""
    weights = np.array([9797, 19234, 3737])
    return ((pixels.astype(np.int64) @ weights) >> 15).astype(np.uint8)


def _to_8_bits(
    pixels: np.ndarray, bits: int | None, path: str | Path
) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise FGCError(
            f'{path} holds {pixels.dtype} values: pictures have 8 or 16 bits '
            'per channel; convert it.'
        )
    brightest = int(pixels.max())
    if bits is None and 0 < brightest < 2**15:
        raise FGCError(
            f'{path} holds 16-bit values up to {brightest}, and how many '
            'bits are in use is not known; convert it to 8 bits.'
        )
    if bits is not None and brightest >= 2**bits:
        raise FGCError(
            f'{path} holds the value {brightest}, but the network was trained '
            f'on pictures of {bits} bits; convert it to 8 bits.'
        )
    return (pixels >> ((bits or 16) - 8)).astype(np.uint8)
