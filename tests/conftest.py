"""Tiny gated classifiers, for every room."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

import fgc_mm.models
from fgc_mm.registry import MODELS


def gated_cfg(backbone=None, gate_losses=(), channels=16, sites='auto'):
    """Config of a gated classifier of 10 classes."""
    if backbone is None:
        backbone = dict(type='fgc_mm.CifarResNet', base_channels=4)
    return dict(
        type='fgc_mm.GatedImageClassifier',
        backbone=dict(
            type='fgc_mm.GatedBackbone',
            backbone=backbone,
            gate=dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
            sites=sites,
        ),
        gate_losses=gate_losses,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=channels,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def samples(labels, first=0):
    """One DataSample per label, with its place in the training set."""
    return [
        DataSample(metainfo=dict(sample_idx=first + i)).set_gt_label(label)
        for i, label in enumerate(labels)
    ]


@pytest.fixture(scope='session')
def tiny():
    """Makes gated classifiers and their inputs."""
    assert fgc_mm.models

    def build(seed=0, **options):
        torch.manual_seed(seed)
        return MODELS.build(gated_cfg(**options))

    return SimpleNamespace(build=build, cfg=gated_cfg, samples=samples)


@pytest.fixture(autouse=True)
def own_scope():
    """No test leaves its Runner's default scope to the next one."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield
