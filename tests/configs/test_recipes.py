"""ManiDP's and FTWT's recipes are the published ones."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS

from fgc_mm.engine.scaled_schedule import scale_epochs
from fgc_mm.functional.schedule import Progress, Schedule

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
MANIDP = sorted(path.stem for path in CONFIGS.glob('manidp_*.py'))
FTWT = sorted(path.stem for path in CONFIGS.glob('ftwt_*.py'))
FOLDERS = [f'{method}_resnet20_folder' for method in ('manidp', 'ftwt', 'fbs')]
# arXiv 2110.08232 and its code; the folder's is our own
RATIOS = {
    'ftwt_resnet56_cifar10': 0.8,
    'ftwt_vgg16_cifar10': 0.92,
    'ftwt_mobilenetv1_cifar10': 1.0,
    'ftwt_resnet18_imagenet': 0.91,
    'ftwt_resnet34_imagenet': 0.92,
    'ftwt_resnet20_folder': 0.68,
    'ftwt_resnet20_folder16': 0.8,
    'ftwt_resnet20_folder32': 0.8,
}


def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def blocks_of(depth):
    """Names of the convs of a CIFAR ResNet's blocks, by hand."""
    return [
        f'layer{stage}.{block}.conv{conv}'
        for stage in (1, 2, 3)
        for block in range((depth - 2) // 6)
        for conv in (1, 2)
    ]


def sites_of(name, **backbone):
    """The gated backbone of a config, perhaps narrower."""
    cfg = read(name).model.backbone
    cfg.backbone.update(backbone)
    return MODELS.build(cfg)


@pytest.mark.parametrize('name', MANIDP)
def test_manidp_is_trained_as_published(name):
    cfg = read(name)
    epochs = cfg.train_cfg.max_epochs
    sgd = cfg.optim_wrapper.optimizer
    assert (sgd.type, sgd.lr, sgd.nesterov) == ('SGD', 0.05, True)
    assert cfg.param_scheduler.type == 'CosineAnnealingLR'
    assert cfg.param_scheduler.T_max == epochs
    if 'imagenet' not in name:
        assert (epochs, cfg.train_dataloader.batch_size) == (400, 128)
    assert cfg.model.backbone.gate.get('hidden_channels') is None
    saliency, gram = cfg.model.gate_losses
    assert saliency.reduction == 'site_means' and saliency.easiness
    assert saliency.loss_weight == 5e-3
    assert not gram.detach
    assert gram.loss_weight == (1.0 if 'resnet56' in name else 0.1)


@pytest.mark.parametrize('name', MANIDP)
@pytest.mark.parametrize('epochs', [None, 2, 3, 5, 100, 1000])
def test_manidps_keep_ends_with_the_last_epoch(name, epochs):
    cfg = read(name)
    cfg = scale_epochs(cfg, epochs) if epochs else cfg
    keep, last = cfg.model.backbone.gate.keep, cfg.train_cfg.max_epochs - 1
    assert (keep.start_value, keep.begin, keep.curve) == (1, 0, 'cosine')
    assert keep.end == last
    schedule = Schedule.build(keep, 'keep')
    assert schedule.at(Progress(0, 0)) == 1
    assert schedule.at(Progress(last, 0)) == keep.end_value
    assert schedule.at(Progress(last - 1, 0)) > keep.end_value
    assert cfg.param_scheduler.T_max == last + 1


def test_manidp_gates_both_convs_of_every_block_and_nothing_else():
    gated = sites_of('manidp_resnet20_cifar10', base_channels=4)
    assert [site.name for site in gated.sites] == blocks_of(20)
    gated = sites_of('manidp_resnet18_imagenet', base_channels=4)
    assert len(gated.sites) == 16
    assert not any('downsample' in site.name for site in gated.sites)


@pytest.mark.parametrize('name', FTWT)
def test_ftwt_is_trained_as_published(name):
    cfg = read(name)
    sgd = cfg.optim_wrapper.optimizer
    assert (sgd.type, sgd.lr, sgd.momentum) == ('SGD', 0.01, 0.9)
    assert not sgd.get('nesterov', False)
    (loss,) = cfg.model.gate_losses
    assert loss.ratio == RATIOS[name]
    if 'imagenet' not in name:
        assert cfg.train_cfg.max_epochs == 200
        assert cfg.train_dataloader.batch_size == 128
        assert cfg.param_scheduler.milestones == [81, 122, 151]


def test_ftwt_gates_the_stem_and_the_blocks():
    gated = sites_of('ftwt_resnet20_folder', base_channels=4)
    assert [site.name for site in gated.sites] == ['conv1', *blocks_of(20)]
    gated = sites_of('ftwt_resnet18_imagenet', base_channels=4)
    assert len(gated.sites) == 17  # no downsample conv
    assert gated.sites[0].name == 'conv1'


def test_ftwt_has_27_predictors_in_mobilenetv1():
    gated = sites_of('ftwt_mobilenetv1_cifar10', width=0.125)
    depthwise = [f'pairs.{i}.0.0' for i in range(13)]
    pointwise = [f'pairs.{i}.1.0' for i in range(13)]
    names = [site.name for site in gated.sites]
    assert len(names) == 27
    assert set(names) == {'stem.0', *depthwise, *pointwise}


def test_ftwt_has_13_predictors_in_vgg16():
    gated = sites_of('ftwt_vgg16_cifar10')
    assert len(gated.sites) == 13
    assert gated.sites[-1].name == 'features.16.conv'  # the last conv


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('epochs', [1, 5, 30])
def test_folder_configs_leave_the_start_to_the_comparison(name, epochs):
    cfg = scale_epochs(read(name), epochs)
    assert cfg.load_from is None
    assert cfg.train_cfg.max_epochs == epochs
    dense = read('dense_resnet20_folder')
    assert dense.model.backbone == cfg.model.backbone.backbone
    for loader in ('val_dataloader', 'test_dataloader'):
        assert cfg[loader] == dense[loader]
    assert cfg.train_dataloader.dataset == dense.train_dataloader.dataset


@pytest.mark.parametrize('name', [n for n in MANIDP if 'folder' not in n])
def test_manidp_starts_from_the_dense_network(name):
    cfg, twin = read(name), name.replace('manidp', 'dense')
    dense = read(twin)
    last = f'epoch_{dense.train_cfg.max_epochs}.pth'
    assert cfg.load_from == f'work_dirs/{twin}/{last}'
    assert dense.model.backbone == cfg.model.backbone.backbone
