"""A tiny gated network on some digits, and one stored pass of it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from fgc_mm.analysis import choose_images, load_dataset, load_or_run_pass
from fgc_mm.deploy import build_model

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['fgc_mm'], allow_failed_imports=False)
model = dict(
    type='fgc_mm.GatedImageClassifier',
    backbone=dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=4),
        gate=dict({gate}),
        sites=['layer3.*']),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16))
data_preprocessor = dict(
    num_classes=10, mean=[78.] * 3, std=[96.] * 3, to_rgb=False)
test_dataloader = dict(
    batch_size=16, num_workers=0,
    dataset=dict(
        type='fgc_mm.Digits', split='test', indices=40,
        pipeline=[dict(type='PackInputs')]))
train_dataloader = dict(
    batch_size=16, num_workers=0,
    dataset=dict(
        type='fgc_mm.Digits', split='train', indices=30,
        pipeline=[dict(type='RandomCrop', crop_size=8, padding=4),
                  dict(type='PackInputs')]))
"""
GATES = {
    'concrete': "type='fgc_mm.BinaryConcreteGate', hidden_channels=4",
    'ftwt': "type='fgc_mm.FTWTGate'",
    'fbs': "type='fgc_mm.FBSGate', density=0.5",
    'manidp': "type='fgc_mm.ManiDPGate', keep=0.6",
    'groups': "type='fgc_mm.BinaryConcreteGate', group=3",
}


def make_project(folder, gate='concrete', seed=0):
    """Config file and checkpoint with random weights."""
    config = folder / f'{gate}.py'
    config.write_text(CONFIG.format(gate=GATES[gate]))
    cfg = Config.fromfile(config)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build_model(cfg)
    checkpoint = folder / f'{gate}_{seed}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    return SimpleNamespace(
        cfg=cfg, config=config, checkpoint=str(checkpoint), model=model
    )


def run_pass(made, folder, **options):
    """The stored pass of a project, and the printed text."""
    said = []
    dataset = options.pop('dataset', None)
    split = options.pop('split', 'test')
    dataset = load_dataset(made.cfg, split) if dataset is None else dataset
    indices = choose_images(len(dataset), options.pop('images', None))
    stored = load_or_run_pass(
        made.cfg, made.checkpoint, 'tiny', dataset, indices, split, folder,
        said.append,
    )  # fmt: skip
    return stored, said


@pytest.fixture(scope='session', params=list(GATES))
def gated(request, tmp_path_factory):
    """A project per kind of gate, with its stored pass."""
    folder = tmp_path_factory.mktemp(request.param)
    made = make_project(folder, request.param)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        made.stored, _ = run_pass(made, folder / 'passes')
    return made


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    """The binary concrete gate's project, with its stored pass."""
    folder = tmp_path_factory.mktemp('project')
    made = make_project(folder)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        made.stored, _ = run_pass(made, folder / 'passes')
    made.folder = folder
    return made
