"""What upstream's data sets raise, in one sentence."""

from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, default_collate
from mmengine.hooks import CheckpointHook
from mmpretrain.datasets import CIFAR10, CIFAR100, MNIST, CustomDataset
from mmpretrain.models import LinearClsHead

from fgc_mm.cli.run_tool import _sentence


@pytest.fixture
def root(tmp_path):
    for kind in ('cat', 'dog', '.git'):
        (tmp_path / kind).mkdir()
        picture = np.zeros((4, 4, 3), np.uint8)
        cv2.imwrite(str(tmp_path / kind / '1.png'), picture)
    return tmp_path


def sentence(raises):
    with pytest.raises(Exception) as caught:
        raises()
    text = _sentence(caught.value)
    assert text is not None and '\n' not in text
    return text


@pytest.mark.parametrize('line', ['', 'cat/1.png', 'cat/1.png cat'])
def test_annotation_files(root, line):
    (root / 'train.txt').write_text(f'cat/1.png 0\n{line}\n')
    text = sentence(
        lambda: CustomDataset(data_root=str(root), ann_file='train.txt')
    )
    assert 'annotation file' in text and "type='fgc_mm.ImageFolder'" in text


def test_folders(root, tmp_path):
    options = dict(data_root=str(root), classes=['cat', 'dog'])
    text = sentence(lambda: CustomDataset(**options))
    assert '3 class folders and 2 classes' in text
    empty = tmp_path / 'cat'
    (empty / '1.png').unlink()
    text = sentence(lambda: CustomDataset(data_root=str(empty)))
    assert 'Found 0 files' in text and 'check data_root' in text


def test_sizes():
    items = [dict(inputs=torch.zeros(3, n, n)) for n in (4, 5)]
    assert '[3, 4, 4] at entry 0' in sentence(lambda: default_collate(items))


def test_a_best_metric_whose_rule_is_unknown():
    text = sentence(lambda: CheckpointHook(save_best='single-label/f1-score'))
    assert 'f1-score' in text and 'rule="greater"' in text


def test_other_errors_are_bugs():
    for error in (ValueError('x'), RuntimeError('x'), AssertionError('x')):
        assert _sentence(error) is None


@pytest.mark.parametrize(
    ('kind', 'file'),
    [
        (CIFAR10, 'cifar-10-python.tar.gz'),
        (CIFAR100, 'cifar-100-python.tar.gz'),
        (MNIST, 'its files'),
    ],
)
def test_a_data_set_that_cannot_be_downloaded(
    kind, file, tmp_path, monkeypatch
):
    def no_network(*_, **__):
        raise URLError('Temporary failure in name resolution')

    monkeypatch.setattr('urllib.request.urlopen', no_network)
    folder = str(tmp_path / 'none')
    text = sentence(lambda: kind(data_root=folder, split='train'))
    assert f'{kind.__name__} is not in {folder}' in text
    assert f'put {file} into that folder' in text
    assert 'Temporary failure' in text and 'http' in text


def test_another_download_keeps_its_error():
    def load():
        raise URLError('Temporary failure in name resolution')

    assert 'Temporary failure' in sentence(load)


def test_data_sets_of_other_classes_joined(root):
    def data(*names):
        options = dict(data_root=str(root), ann_file='a.txt', classes=names)
        return CustomDataset(**options)

    (root / 'a.txt').write_text('cat/1.png 0\n')
    text = sentence(
        lambda: ConcatDataset([data('cat', 'dog'), data('dog', 'cat')])
    )
    assert 'same list as classes=' in text


def test_a_head_without_classes():
    text = sentence(lambda: LinearClsHead(num_classes=0, in_channels=4))
    assert text.startswith('num_classes=0 must be a positive integer: set')
