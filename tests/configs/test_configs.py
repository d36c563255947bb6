"""Every config trains, and is that of its name."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.models import GatedBackbone

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PATHS = sorted(CONFIGS.glob('*.py'))
NAMES = [path.stem for path in PATHS]
KINDS = 'fgc', 'bas', 'dense'
COUPLED = {
    'resnet20': 2, 'resnet32': 2, 'resnet56': 4, 'resnet18': 1, 'vgg16': 2,
    'resnet50': 1, 'mobilenetv2': 1, 'regnetx': 1, 'deit-tiny': 1,
}  # fmt: skip
TWINS = [
    *(f'resnet{d}_cifar{c}' for d in (20, 32, 56) for c in (10, 100)),
    'resnet18_imagenet', 'resnet20_folder', 'resnet20_digits',
]  # fmt: skip
# the models of the stages are those of the single run; see test_stages.py
SINGLE = [name for name in NAMES if '_stage' not in name]
SIZES = {'digits': 8, 'fgc_deit-tiny_imagenet': 224}


@pytest.fixture(scope='module')
def read():
    files = {}

    def load(name):
        if name not in files:
            files[name] = Config.fromfile(CONFIGS / f'{name}.py')
        return files[name].copy()

    return load


@pytest.mark.parametrize('twin', TWINS)
def test_each_config_has_its_counterparts(twin, read):
    fgc, bas, dense = (read(f'{kind}_{twin}') for kind in KINDS)
    for cfg in (bas, dense):
        for part in ('train_dataloader', 'optim_wrapper', 'train_cfg',
                     'param_scheduler', 'data_preprocessor'):  # fmt: skip
            assert cfg[part] == fgc[part], part
    assert bas.model.backbone == fgc.model.backbone
    assert dense.model.backbone == fgc.model.backbone.backbone
    assert bas.model.head == dense.model.head == fgc.model.head
    assert bas.model.gate_losses == fgc.model.gate_losses[:-1]


@pytest.mark.parametrize('name', NAMES)
def test_images_on_a_device_are_not_pinned(name, read):
    cfg = read(name)
    for kind in ('train', 'val', 'test'):
        loader = cfg[f'{kind}_dataloader']
        if loader.dataset.get('device', 'cpu') != 'cpu':
            assert loader.pin_memory is False


@pytest.mark.parametrize('name', NAMES)
def test_its_parts_fit_its_name(name, read):
    cfg, kind = read(name), name.partition('_')[0]
    kinds = {x['type'] for x in cfg.get('val_evaluator')}
    assert ('fgc_mm.DynamicMACs' in kinds) == (kind not in ('dense', 'sfp'))
    assert cfg.val_evaluator == cfg.test_evaluator
    hooks = [hook['type'] for hook in cfg.get('custom_hooks', [])]
    coupled = kind in ('fgc', 'fgcplus')
    assert ('fgc_mm.FGCMemoryBankHook' in hooks) == coupled
    assert ('fgc_mm.LossProgressHook' in hooks) == (
        kind not in ('dense', 'sfp')
    )
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports['imports'] == ['fgc_mm']
    network, backbone = name.split('_')[1], cfg.model.backbone
    if network.startswith('resnet'):
        depth = int(network.removeprefix('resnet'))
        assert backbone.get('backbone', backbone)['depth'] == depth


@pytest.mark.parametrize('name', [n for n in NAMES if n.startswith('ftwt')])
def test_ftwt_starts_from_the_dense_network_and_cools_down(name, read):
    cfg = read(name)
    (loss,) = cfg.model.gate_losses
    weight, epochs = loss.loss_weight, cfg.train_cfg.max_epochs
    assert (weight.start_value, weight.end_value) == (1, 0)
    assert weight.begin == weight.end == epochs // 2
    assert dict(type='fgc_mm.GateLRHook', lr=0.1) in cfg.custom_hooks
    if 'folder' not in name:  # there the comparison sets where to start
        folder = cfg.load_from.split('/')[1]
        assert folder == name.replace('ftwt', 'dense')
        dense = read(folder)
        last = f'epoch_{dense.train_cfg.max_epochs}.pth'
        assert cfg.load_from == f'work_dirs/{folder}/{last}'
        assert dense.model.backbone == cfg.model.backbone.backbone


@pytest.mark.parametrize(
    'name',
    [n for n in NAMES if n.endswith('_55') and 'folder' not in n],
)
def test_a_budget_takes_the_place_of_the_l0_loss(name, read):
    mine, other = read(name), read(name.removesuffix('_55'))
    shaping, target, *rest = mine.model.gate_losses
    assert target.type == 'fgc_mm.MACsTargetLoss'
    assert target.pruning_ratio == 0.55
    old = other.model.gate_losses
    assert [shaping, *rest] == [old[0], *old[2:]]
    assert target.loss_weight.begin == old[1].loss_weight.begin
    assert target.loss_weight.end_value == 50


@pytest.mark.parametrize('size', [16, 32])
def test_the_budget_of_the_comparisons_grows_as_the_l0_weight_does(size, read):
    bas, fgc = (read(f'{m}_resnet20_folder{size}_55') for m in ('bas', 'fgc'))
    assert fgc.model.gate_losses[:2] == bas.model.gate_losses
    shaping, target = bas.model.gate_losses
    old, l0 = read('bas_resnet20_folder').model.gate_losses
    assert shaping == old and target.pruning_ratio == 0.55
    for end in ('begin', 'end'):
        assert target.loss_weight[end] == l0.loss_weight[end]


@pytest.mark.parametrize(
    'name', [n for n in NAMES if n.split('_')[2].startswith('folder32')]
)
def test_the_large_images_are_those_of_the_small_but_for_their_size(
    name, read
):
    """Both comparisons have the same questions."""
    small, large = read(name.replace('folder32', 'folder16')), read(name)
    for loader, pad in (('train', 2), ('val', 0), ('test', 0)):
        one, two = (c[f'{loader}_dataloader'] for c in (small, large))
        assert two.dataset.pop('device') == 'auto'
        assert two.pop('pin_memory') is False
        assert two.dataset.get('padding', 0) == 2 * pad
        holder = two.dataset.dataset if pad else two.dataset
        resize = holder.pipeline[1]
        assert resize.scale == (32, 32)
        resize.scale = (16, 16)
        if pad:
            two.dataset.padding = pad
        assert one == two
    for part in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert small[part] == large[part]


@pytest.mark.parametrize('name', [n for n in SINGLE if n.startswith('fgc_')])
def test_coupling_starts_when_batch_shaping_ends(name, read):
    shaping, l0, coupling = read(name).model.gate_losses
    epochs = read(name).train_cfg.max_epochs
    assert coupling.sites == COUPLED[name.split('_')[1]]
    start = coupling.loss_weight.begin
    assert start == shaping.loss_weight.end == l0.loss_weight.begin
    assert start <= l0.loss_weight.end < epochs
    assert coupling.loss_weight.end_value == 0.003


def build(cfg):
    """The config's model, as a Runner builds it."""
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg.model.pop('distillation', None)  # its teacher has no weights yet
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def batch_of(model, size):
    classes = model.head.num_classes
    samples = [
        DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i % classes)
        for i in range(4)
    ]
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def prepare(model, epoch):
    """What the hooks do before a step."""
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = Progress(epoch, 0)
        if isinstance(part, FeatureGateCouplingLoss):
            part.build_banks(model.backbone.sites, 400)


@pytest.mark.parametrize('name', SINGLE)
def test_two_steps_of_training(name, read):
    cfg = read(name)
    model = build(cfg).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    check_decay(model, wrapper, cfg)
    # FTWT's gates are trained in the first half only
    late = not name.startswith('ftwt')
    prepare(model, epoch=late * (cfg.train_cfg.max_epochs - 1))
    size = next((v for k, v in SIZES.items() if k in name), 32)
    before = {k: v.clone() for k, v in model.named_parameters()}
    for _ in range(2):
        data = batch_of(model, size)
        losses = model.train_step(data, wrapper)
        assert all(math.isfinite(float(v)) for v in losses.values())
        for loss in getattr(model, 'gate_losses', ()):
            if isinstance(loss, FeatureGateCouplingLoss):
                assert losses['loss_coupling'] > -1e-6  # rounding
                loss.write_banks()
    for key, value in model.named_parameters():
        assert value.isfinite().all(), key
        assert not torch.equal(value, before[key]), key


def check_decay(model, wrapper, cfg):
    """Gates, their norms included, are not decayed; all else is."""
    usual = cfg.optim_wrapper.optimizer.weight_decay
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    gated = isinstance(model.backbone, GatedBackbone)
    free = [*model.backbone.gates.parameters()] if gated else []
    assert all(decay[id(p)] == 0 for p in free)
    kept = {id(p) for p in model.parameters()} - {id(p) for p in free}
    assert all(decay[key] == usual for key in kept)
    assert len(decay) == len(kept) + len(free)
