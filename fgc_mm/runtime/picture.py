"""Reading image files with Pillow or OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgc_mm.errors import FGCError

# Fixed-point weights of red, green and blue, what is added, and the bits.
# Other formats are decoded in colour and converted.
GREY_BY_DECODER = 4899, 9617, 1868, 1 << 13, 14
GREY_BY_CONVERSION = 9798, 19235, 3735, 1 << 14, 15
GREY = {
    'PNG': (9797, 19234, 3737, 0, 15),
    **dict.fromkeys(('BMP', 'PPM', 'TIFF'), GREY_BY_DECODER),
}


def read_picture(
    path: str | Path, grey: bool = False, bits: int | None = 16
) -> np.ndarray:
    """Decode an image file, rotated according to its EXIF data.

    Args:
        grey: Decode to brightness only.
        bits: Number of used bits in 16-bit images; ``None``: images that
            never set the highest bit are refused.

    Returns:
        (H, W, 3) uint8 in RGB order, or (H, W); the same values as OpenCV.

    Raises:
        FGCError: Neither Pillow nor OpenCV is installed, or the file is not
            an image.
        OSError: The file cannot be read.
    """
    content = Path(path).read_bytes()
    pixels = _decoded(content, grey)
    if pixels is None:
        raise FGCError(
            f'{path} cannot be decoded; give an undamaged image file, e.g. '
            'JPEG or PNG.'
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
        kind = picture.format
        if grey:
            picture.draft('L', picture.size)  # decodes only a JPEG's luma
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ('I', 'F') or picture.mode.startswith('I;16'):
            pixels = np.array(picture)
            fits = pixels.min() >= 0 and pixels.max() < 2**16
            if picture.mode != 'F' and fits:
                pixels = pixels.astype(np.uint16)
            return pixels if grey else np.repeat(pixels[:, :, None], 3, axis=2)
        if grey and picture.mode == 'L':
            return np.array(picture)
        pixels = np.array(picture.convert('RGB'))
    except MemoryError:
        raise
    except Exception:  # decoders raise anything for a damaged file
        return None
    return _brightness(pixels, kind) if grey else pixels


def _by_opencv(content: bytes, grey: bool) -> np.ndarray | None:
    try:
        import cv2
    except ImportError as error:
        raise FGCError(
            'images are decoded by Pillow or OpenCV, but neither is '
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


def _brightness(pixels: np.ndarray, kind: str | None) -> np.ndarray:
    """Brightness as OpenCV's decoder for a format computes it."""
    *weights, half, bits = GREY.get(kind or '', GREY_BY_CONVERSION)
    total = pixels.astype(np.int64) @ np.array(weights) + half
    return (total >> bits).astype(np.uint8)


def _to_8_bits(
    pixels: np.ndarray, bits: int | None, path: str | Path
) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise FGCError(
            f'{path} has {pixels.dtype} values, but images must have 8 or 16 '
            'bits per channel; convert it.'
        )
    brightest = int(pixels.max())
    if bits is None and 0 < brightest < 2**15:
        raise FGCError(
            f'{path} has 16-bit values up to {brightest}, so the number of '
            'used bits is unknown; convert it to 8 bits.'
        )
    if bits is not None and brightest >= 2**bits:
        raise FGCError(
            f'{path} has the value {brightest}, but the network was trained '
            f'on images of {bits} bits; convert it to 8 bits.'
        )
    return (pixels >> ((bits or 16) - 8)).astype(np.uint8)
