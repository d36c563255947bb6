"""Images that cannot be decoded are named."""

import cv2
import numpy as np
import pytest

from fgc_mm.datasets import LoadImage, load_image
from fgc_mm.errors import FGCError


def test_a_damaged_image_is_named(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.full((4, 5, 3), 7, np.uint8))
    found = LoadImage().transform(dict(img_path=str(path)))
    assert found['img'].shape == (4, 5, 3) and (found['img'] == 7).all()
    for content in (b'', b'no image', path.read_bytes()[:20]):
        path.write_bytes(content)
        with pytest.raises(FGCError, match=r'a\.png cannot be decoded'):
            LoadImage().transform(dict(img_path=str(path)))


DEEP = {
    'rgb16.png': np.full((4, 5, 3), 3000, np.uint16),
    'grey16.png': np.full((4, 5), 3000, np.uint16),
    'grey16.tif': np.full((4, 5), 3000, np.uint16),
    'grey16.pgm': np.full((4, 5), 3000, np.uint16),
    'float.tif': np.full((4, 5), 0.5, np.float32),
}


@pytest.mark.parametrize('name', DEEP)
def test_pillow_would_clip_more_than_8_bits(tmp_path, name):
    path = str(tmp_path / name)
    cv2.imwrite(path, DEEP[name])
    with pytest.raises(FGCError, match='more than 8 bits per channel'):
        LoadImage(imdecode_backend='pillow').transform(dict(img_path=path))


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.tif', 'a.webp'])
def test_pillow_reads_8_bits(tmp_path, name):
    path = str(tmp_path / name)
    cv2.imwrite(path, np.full((4, 5, 3), 7, np.uint8))
    step = LoadImage(imdecode_backend='pillow')
    found = step.transform(dict(img_path=path))['img']
    assert found.shape == (4, 5, 3) and (abs(found.astype(int) - 7) < 3).all()


def test_a_file_that_pillow_cannot_decode_is_named(tmp_path):
    path = tmp_path / 'a.png'
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    step = LoadImage(imdecode_backend='pillow')
    for content in (b'', b'no image', whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FGCError, match=r'a\.png cannot be decoded'):
            step.transform(dict(img_path=str(path)))


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_a_missing_file_keeps_its_error(tmp_path, backend):
    with pytest.raises(FileNotFoundError):
        LoadImage(imdecode_backend=backend).transform(
            dict(img_path=str(tmp_path / 'none.png'))
        )


def test_decoders_that_cannot_do_it(monkeypatch):
    monkeypatch.setattr(load_image, 'find_spec', lambda name: None)
    for backend in ('tifffile', 'turbojpeg'):
        with pytest.raises(FGCError, match=f'needs the package {backend}'):
            LoadImage(imdecode_backend=backend)
    with pytest.raises(FGCError, match='bits=12 of LoadImage has no effect'):
        LoadImage(imdecode_backend='pillow', bits=12)


@pytest.mark.parametrize('kind', [np.float32, np.int32])
@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 3)])
def test_a_complete_file_of_32_bits_is_not_reported_as_damaged(
    tmp_path, kind, shape
):
    path = str(tmp_path / 'a.tif')
    cv2.imwrite(path, np.ones(shape, kind))
    with pytest.raises(FGCError, match=r'(float|int)?32 .* must have 8 or 16'):
        LoadImage().transform(dict(img_path=path))
