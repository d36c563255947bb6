"""Backbones that take images of one size only."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import PackInputs, RandomCrop
from torch import nn

from fgc_mm.engine.image_size import config_image_size, pipeline_size
from fgc_mm.errors import FGCError
from fgc_mm.sites import find_sites
from fgc_mm.sites.image_size import expect_images, named_sizes, small_images


class Picky(nn.Module):
    """Takes images of one size."""

    def __init__(self, height=160, width=160):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.height, self.width = height, width

    def forward(self, x):
        if x.shape[2:] != (self.height, self.width):
            raise ValueError(f'only {self.height} x {self.width}')
        return self.b(self.a(x).relu())


def with_attribute(**attributes):
    net = Picky()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net


def embedded(**attributes):
    net = Picky()
    for name, value in attributes.items():
        setattr(net.b, name, value)
    return net


CONFIGURED = SimpleNamespace(input_size=(3, 160, 160))


@pytest.mark.parametrize(
    'net',
    [
        with_attribute(img_size=160),
        with_attribute(img_size=(160, 160)),
        with_attribute(image_size=[160, 160]),
        with_attribute(pretrained_cfg=dict(input_size=(3, 160, 160))),
        with_attribute(default_cfg=CONFIGURED),
        embedded(init_input_size=(160, 160)),
        embedded(img_size=160),
        with_attribute(img_size='large', input_size=160),
    ],
)
def test_a_size_stored_in_a_module_is_tried(net):
    assert [site.name for site in find_sites(net)] == ['a']
    assert small_images(net).shape == (1, 3, 160, 160)


def test_an_expected_size_is_tried():
    with pytest.raises(FGCError, match='on an image of size 3x512x512'):
        find_sites(Picky(96, 128))
    expect_images((96, 128))
    assert [site.name for site in find_sites(Picky(96, 128))] == ['a']


def test_the_error_is_about_the_stored_size():
    rule = r'on an image of size 3x192x192 \(only 160'
    with pytest.raises(FGCError, match=rule):
        find_sites(with_attribute(img_size=192))
    expect_images((48, 48))
    with pytest.raises(FGCError, match='on an image of size 3x48x48'):
        find_sites(Picky())
    with pytest.raises(FGCError, match='on an image of size 3x80x80'):
        find_sites(Picky(), dict(type='auto', image_size=80))


class Grey(nn.Module):
    """Takes grey images of one size."""

    def __init__(self, size=32):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)
        self.c = nn.Linear(2 * size * size, 3)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).relu().flatten(1))


def test_the_number_of_channels_is_that_of_the_first_conv():
    for size in (28, 32):
        assert small_images(Grey(size)).shape == (1, 1, size, size)
    with pytest.raises(FGCError, match='on an image of size 1x512x512 in c'):
        find_sites(Grey(33))


def test_sizes_of_feature_maps_are_not_image_sizes():
    net = embedded(img_size=7, input_size=(14, 14))
    assert list(named_sizes(net)) == []
    net.img_size = 28
    assert list(named_sizes(net)) == [(28, 28)]


RESIZE = dict(type='Resize', scale=(128, 96))


@pytest.mark.parametrize(
    ('steps', 'size'),
    [
        ([RESIZE], (96, 128)),
        ([RESIZE, dict(type='CenterCrop', crop_size=80)], (80, 80)),
        ([RESIZE, dict(type='CenterCrop', crop_size=(80, 60))], (60, 80)),
        ([dict(type='mmpretrain.Resize', scale=64)], (64, 64)),
        ([dict(type='ResizeEdge', scale=256)], (256, 256)),
        ([dict(type='torchvision/Resize', size=64)], (64, 64)),
        ([dict(type='torchvision/Resize', size=[64])], (64, 64)),
        ([dict(type='torchvision/CenterCrop', size=(64, 48))], (64, 48)),
        ([dict(type='RandomCrop', crop_size=(64, 48))], (64, 48)),
        ([RESIZE, dict(type='Pad', size=(160, 144))], (144, 160)),
        ([RESIZE, dict(type='Pad', size_divisor=32)], (96, 128)),
        ([dict(type='Resize', scale_factor=2.0)], None),
        ([dict(type='PackInputs')], None),
        (None, None),
    ],
)
def test_the_size_of_a_config_is_its_test_pipelines(steps, size):
    loader = dict(dataset=dict(type='X', pipeline=steps))
    assert config_image_size(Config(dict(test_dataloader=loader))) == size
    assert config_image_size(Config(dict(val_dataloader=loader))) == size


def test_the_size_of_concatenated_data_is_that_of_the_first():
    part = dict(type='X', pipeline=[RESIZE])
    loader = dict(dataset=dict(type='ConcatDataset', datasets=[part, part]))
    assert config_image_size(Config(dict(test_dataloader=loader))) == (96, 128)


def test_a_config_without_data_has_no_size():
    assert config_image_size(Config(dict(test_dataloader=None))) is None


def test_loading_a_config_sets_the_expected_size(tmp_path):
    from fgc_mm.engine.config_file import load_config

    file = tmp_path / 'config.py'
    file.write_text(
        'test_dataloader = dict(dataset=dict(pipeline=['
        "dict(type='Resize', scale=160)]))\n"
    )
    load_config(str(file))
    assert torch.equal(small_images(Picky()), small_images(Picky(), size=160))


def test_classes_in_a_pipeline_are_as_their_names():
    for kind in ('RandomCrop', 'mmpretrain.RandomCrop', RandomCrop):
        steps = [dict(type=kind, crop_size=(40, 32)), dict(type=PackInputs)]
        assert pipeline_size(steps) == (40, 32)
