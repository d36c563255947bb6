"""The built-in digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fgc_mm.datasets import Digits
from fgc_mm.errors import FGCError
from fgc_mm.registry import DATASETS


@pytest.fixture(scope='module')
def splits():
    return {name: Digits(name) for name in ('train', 'test')}


def test_sizes_and_items(splits):
    assert {k: len(v) for k, v in splits.items()} == dict(train=1437, test=360)
    for number in (0, 7, -1):
        item = splits['train'][number]
        assert item['img'].shape == (8, 8, 3)
        assert item['img'].dtype == np.uint8
        assert item['gt_label'] in range(10)
    assert splits['train'][7]['sample_idx'] == 7


def test_every_class_is_in_each_split_in_its_share(splits):
    for split in splits.values():
        labels = split.get_gt_labels()
        shares = np.bincount(labels, minlength=10) / len(labels)
        assert shares.min() > 0.09 and shares.max() < 0.11
    assert tuple('0123456789') == splits['test'].CLASSES


def keys(split):
    return [
        (split[i]['img'].tobytes(), split[i]['gt_label'])
        for i in range(len(split))
    ]


def test_the_splits_hold_each_image_once_with_its_label(splits):
    digits = load_digits()
    grey = np.round(digits.images * 255 / 16).astype(np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    every = sorted(
        (image.tobytes(), int(label))
        for image, label in zip(rgb, digits.target)
    )
    both = keys(splits['train']) + keys(splits['test'])
    assert sorted(both) == every
    assert grey.max() == 255 and grey.min() == 0


def test_the_split_is_the_same_every_time(splits):
    assert keys(Digits('test')) == keys(splits['test'])


def test_a_part_of_it(splits):
    part = DATASETS.build(dict(type='fgc_mm.Digits', indices=5))
    assert keys(part) == keys(splits['train'])[:5]
    assert [part[i]['sample_idx'] for i in range(5)] == list(range(5))


def test_an_unknown_split_is_refused():
    with pytest.raises(FGCError, match=r"split='val' .*'train' or 'test'"):
        Digits('val')


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match='colour'):
        Digits('train', colour=True)
