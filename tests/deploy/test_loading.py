"""Images of a config's data loaders, for calibration and analysis."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from PIL import Image

import fgc_mm
from fgc_mm.datasets import InMemoryImages
from fgc_mm.deploy.loading import build_dataset


def images_in_memory(split, **augmentation):
    pipeline = [dict(type='PackInputs')]
    digits = dict(type='fgc_mm.Digits', split=split, indices=4)
    dataset = dict(
        type='fgc_mm.InMemoryImages',
        dataset=dict(**digits, pipeline=pipeline),
        **augmentation,
    )
    return dict(batch_size=2, dataset=dataset)


def test_training_images_are_not_augmented():
    cfg = Config(
        dict(
            train_dataloader=images_in_memory('train', padding=3, flip=1.0),
            test_dataloader=images_in_memory('test'),
        )
    )
    got = build_dataset(cfg, 'train')
    plain = InMemoryImages(got.source)
    assert got.padding == got.flip == 0
    for augmented, image in zip(
        got.__getitems__(range(4)), plain.__getitems__(range(4)), strict=True
    ):
        assert (augmented['inputs'] == image['inputs']).all()


FLIP = dict(type='RandomFlip', prob=1.0, direction='horizontal')
PLAIN, FLIPPED = [dict(type='PackInputs')], [FLIP, dict(type='PackInputs')]


def digits(pipeline):
    return dict(type='fgc_mm.Digits', split='train', indices=4,
                pipeline=pipeline)  # fmt: skip


WRAPPERS = {
    'plain': lambda one: one,
    'repeated': lambda one: dict(type='RepeatDataset', times=2, dataset=one),
    'joined': lambda one: dict(type='ConcatDataset', datasets=[one, one]),
    'both': lambda one: dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[one])),
}  # fmt: skip


@pytest.mark.parametrize('test', WRAPPERS)
@pytest.mark.parametrize('train', WRAPPERS)
def test_wrapped_sets_have_the_pipeline_of_the_test(train, test):
    train, test = WRAPPERS[train], WRAPPERS[test]
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=train(digits(FLIPPED))),
            test_dataloader=dict(dataset=test(digits(PLAIN))),
        )
    )
    dataset = build_dataset(cfg, 'train')
    wanted = DATASETS.build(train(digits(PLAIN)))
    assert len(dataset) == len(wanted)
    for number in range(len(wanted)):
        got, plain = dataset[number], wanted[number]
        assert (got['inputs'] == plain['inputs']).all()


def test_wrapped_images_in_memory_are_not_augmented():
    train = images_in_memory('train', padding=3, flip=1.0)['dataset']
    wrapped = dict(type='RepeatDataset', times=2, dataset=train)
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=wrapped),
            test_dataloader=images_in_memory('test'),
        )
    )
    got = build_dataset(cfg, 'train')
    assert len(got) == 8
    assert got.dataset.padding == got.dataset.flip == 0


def test_every_augmentation_is_an_option_that_can_be_switched_off():
    names = InMemoryImages.AUGMENTATIONS
    source = InMemoryImages(images_in_memory('test')['dataset']['dataset'])
    off = InMemoryImages(source.source, **dict.fromkeys(names, 0))
    assert not any(getattr(off, name) for name in names)


FOLDERS = ['folder', 'folder16', 'folder32', 'folder224']


@pytest.mark.parametrize('name', FOLDERS)
def test_both_sets_of_the_shipped_configs(name, tmp_path, monkeypatch):
    """Some have the pipeline on the set that wraps the folder."""
    monkeypatch.chdir(tmp_path)
    for split in ('train', 'test'):
        folder = Path('data/folder', split, 'cat')
        folder.mkdir(parents=True)
        pixels = np.full((40, 40, 3), 7, np.uint8)
        Image.fromarray(pixels).save(folder / 'one.png')
    base = Path(fgc_mm.__file__).parents[1] / 'configs/_base_/datasets'
    cfg = Config.fromfile(base / f'{name}.py')
    for split in ('train', 'test'):
        dataset = build_dataset(cfg, split)
        assert len(dataset) == 1
        shapes = {tuple(dataset[0]['inputs'].shape) for _ in range(5)}
        size = {'folder': 32, 'folder16': 16, 'folder32': 32, 'folder224': 224}
        assert shapes == {(3, size[name], size[name])}
        assert (dataset[0]['inputs'] == 7).all()  # without padding
