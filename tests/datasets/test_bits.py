"""Images of 16 bits, and those that use fewer of them."""

import cv2
import numpy as np
import pytest

from fgc_mm.datasets import LoadImage
from fgc_mm.errors import FGCError

RANDOM = np.random.default_rng(0)


@pytest.fixture(params=['.png', '.tiff', '.pgm'])
def saved(request, tmp_path):
    """Writes 16-bit values; the path."""

    def write(values):
        path = tmp_path / f'a{request.param}'
        if request.param == '.pgm':
            values = values[..., 0]
        assert cv2.imwrite(str(path), values.astype(np.uint16))
        return str(path)

    return write


def load(path, **options):
    return LoadImage(**options).transform(dict(img_path=path))['img']


def grey(bits):
    values = RANDOM.integers(0, 2**bits, (5, 6, 1))
    values[0, 0] = 2**bits - 1
    return values.repeat(3, axis=2)


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_all_bits_in_use_become_8(saved, bits):
    values = grey(bits)
    image = load(saved(values), bits=bits)
    assert image.dtype == np.uint8 and image.max() == 255
    np.testing.assert_array_equal(image, values >> (bits - 8))


@pytest.mark.parametrize('bits', [8, 10, 12, 14])
def test_fewer_bits_are_refused_unless_given(saved, bits):
    path = saved(grey(bits))
    with pytest.raises(FGCError, match=rf'up to {2**bits - 1}.*bits={bits}'):
        load(path)
    assert load(path, bits=16).max() == (2**bits - 1) >> 8
    if bits > 8:
        with pytest.raises(FGCError, match=r'set a larger number'):
            load(path, bits=8)


def test_the_whole_range_and_black_are_accepted(saved):
    values = grey(16)
    np.testing.assert_array_equal(load(saved(values)), values >> 8)
    assert not load(saved(values * 0)).any()


def test_8_bits_floats_and_other_flags(tmp_path):
    path = str(tmp_path / 'a.png')
    values = RANDOM.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    cv2.imwrite(path, values)
    np.testing.assert_array_equal(load(path, bits=12), values)
    image = load(path, to_float32=True)
    assert image.dtype == np.float32 and (image == values).all()
    grey_image = load(path, color_type='grayscale')
    assert grey_image.shape == (5, 6) and grey_image.dtype == np.uint8
    path = str(tmp_path / 'a.tiff')
    cv2.imwrite(path, values.astype(np.float32) / 255)
    with pytest.raises(FGCError, match=r'a\.tiff has float32 values'):
        load(path)


@pytest.mark.parametrize('bits', [7, 17, 1.5, '12'])
def test_bits_outside_their_range(bits):
    with pytest.raises(FGCError, match=r'bits=.* from 8 to 16'):
        LoadImage(bits=bits)
