"""A share of a folder, evenly over the classes."""

import cv2
import numpy as np
import pytest

from fgc_mm.datasets import ImageFolder, LoadImage
from fgc_mm.errors import FGCError


@pytest.fixture
def folder(tmp_path):
    for kind in ('cat', 'dog'):
        (tmp_path / kind).mkdir()
        for number in range(6):
            picture = np.full((4, 4, 3), number, np.uint8)
            cv2.imwrite(str(tmp_path / kind / f'{number}.png'), picture)
    return str(tmp_path)


@pytest.mark.parametrize(('every', 'count'), [(1, 12), (3, 4), (5, 3)])
def test_every_nth_image_with_an_index_of_its_own(folder, every, count):
    data = ImageFolder(data_root=folder, every=every)
    assert len(data) == count
    whole = ImageFolder(data_root=folder)
    for place in range(count):
        info, same = (
            data.get_data_info(place),
            whole.get_data_info(every * place),
        )
        assert info['img_path'] == same['img_path']
        assert info['gt_label'] == same['gt_label']
        assert info['sample_idx'] == place


@pytest.mark.parametrize('every', [0, -1, 1.5, None])
def test_what_is_no_step_is_refused(folder, every):
    with pytest.raises(FGCError, match=r'every=.* whole number'):
        ImageFolder(data_root=folder, every=every)


def test_one_extension_may_be_a_string(folder):
    """And not its letters."""
    assert len(ImageFolder(data_root=folder, extensions='.png')) == 12
    with pytest.raises(FGCError, match='no image'):
        ImageFolder(data_root=folder, extensions='.jpg')


def test_a_link_to_a_missing_file_is_not_left_out(folder, tmp_path):
    (tmp_path / 'cat' / '6.png').symlink_to(tmp_path / 'missing.png')
    (tmp_path / 'dog' / '6.png').symlink_to(tmp_path / 'cat' / '0.png')
    data = ImageFolder(data_root=folder, pipeline=[LoadImage()])
    assert len(data) == 14
    with pytest.raises(FileNotFoundError, match=r'cat.6\.png'):
        data[6]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FGCError, match=r'none is not a folder.*data_root'):
        ImageFolder(data_root=str(tmp_path / 'none'))
