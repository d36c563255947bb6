"""Weights that a test loads, and checkpoints that it refuses."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.reliability.whole_checkpoint import WholeCheckpointHook


def classifier(backbone, channels, **options):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=dict(
                type='fgc_mm.GatedBackbone',
                backbone=backbone,
                gate=dict(type='fgc_mm.BinaryConcreteGate'),
            ),
            head=dict(
                type='LinearClsHead', num_classes=2, in_channels=channels
            ),
            neck=dict(type='GlobalAveragePooling'),
            **options,
        )
    )


@pytest.fixture(scope='module')
def small():
    return classifier(dict(type='fgc_mm.CifarResNet', base_channels=4), 16)


def load(model, state):
    """As MMEngine's Runner calls the hook."""
    runner = SimpleNamespace(
        model=model, cfg=SimpleNamespace(load_from='x.pth')
    )
    checkpoint = {'state_dict': state, 'meta': {}}
    WholeCheckpointHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_weights_of_the_network(small, prefix):
    state = {f'{prefix}{k}': v for k, v in small.state_dict().items()}
    load(small, state)


def test_a_model_in_wrappers(small):
    """With test-time augmentation on several ranks there are two."""
    inner = copy.deepcopy(small)
    tta = MODELS.build(dict(type='AverageClsScoreTTA', module=inner))
    for wrapped in (tta, nn.DataParallel(inner), nn.DataParallel(tta)):
        load(wrapped, small.state_dict())
        state = small.state_dict()
        del state['head.fc.bias']
        with pytest.raises(FGCError, match='another config'):
            load(wrapped, state)


def test_what_no_test_needs(small):
    state = {
        name: value
        for name, value in small.state_dict().items()
        if 'num_batches_tracked' not in name
    }
    load(small, {**state, 'gate_losses.0.mean': torch.ones(1)})


def test_weights_that_the_network_resizes():
    """A position embedding for images of another size."""
    vit = dict(
        type='VisionTransformer', patch_size=8, out_type='featmap',
        arch=dict(embed_dims=16, num_layers=2, num_heads=2,
                  feedforward_channels=32),
    )  # fmt: skip
    first, second = (
        classifier(dict(vit, img_size=size), 16) for size in (32, 64)
    )
    load(second, first.state_dict())


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(missing='head.fc.bias'),
         r'1 weights .* missing, and 0 are unknown .* \(head\.fc\.bias, '),
        (dict(unknown='backbone.backbone.layer4.weight'),
         r'0 weights .* and 1 are unknown .* \(backbone\.backbone\.layer4'),
        (dict(shape='head.fc.bias'), r'size mismatch for head\.fc\.bias'),
        (dict(shape='backbone.gates.layer1-0-conv1.expand.weight'),
         r"gate of layer1\.0\.conv1 does not match this model's"),
    ],
)  # fmt: skip
def test_another_network(small, change, words):
    state = small.state_dict()
    state.pop(change.get('missing'), None)
    for name in (change.get('unknown'), change.get('shape')):
        if name:
            state[name] = torch.ones(7)
    with pytest.raises(FGCError, match=rf'x\.pth is a checkpoint .*{words}'):
        load(small, state)
