"""Images that cannot be decoded are named."""

import cv2
import numpy as np
import pytest

from fgc_mm.datasets import LoadImage
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
