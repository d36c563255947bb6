"""Exactness and MACs on mmpretrain's own backbones, through the wrapper."""

import copy

import pytest
import torch
import torch_pruning as tp
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from fgc_mm.functional import macs_per_image
from fgc_mm.models import GatedBackbone, build_macs_table

GATE = dict(type='fgc_mm.BinaryConcreteGate')
BACKBONES = [
    dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    dict(type='ResNeXt', depth=50, groups=4, width_per_group=4),
    dict(type='SEResNet', depth=50),
    dict(type='VGG', depth=11, norm_cfg=dict(type='BN'), num_classes=5),
    dict(type='MobileNetV2', widen_factor=0.5),
    dict(type='MobileNetV3', arch='small'),
    dict(type='DenseNet', arch='121', drop_rate=0.0),
    dict(type='RegNet', arch='regnetx_400mf'),
    dict(type='ConvNeXt', arch='atto'),
    dict(
        type='VisionTransformer', arch='deit-t', img_size=64, patch_size=16
    ),
]


def size_of(config):
    return 224 if config['type'] == 'VGG' else 64


@pytest.fixture(params=BACKBONES, ids=lambda c: c['type'])
def gated(request):
    torch.manual_seed(0)
    network = GatedBackbone(request.param, GATE).eval()
    for module in network.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    size = size_of(request.param)
    images = torch.randn(
        2, 3, size, size, generator=torch.Generator().manual_seed(1)
    )
    return network, images


def flat(outputs):
    return [outputs] if torch.is_tensor(outputs) else [
        tensor for output in outputs for tensor in flat(output)
    ]


@torch.no_grad()
def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(flat(first), flat(second)))


@torch.no_grad()
def test_all_open_is_the_plain_backbone_bit_for_bit(gated):
    network, images = gated
    for gate in network.gates.values():
        gate.expand.bias.fill_(1e4)
    assert same(network(images), network.backbone(images))


@torch.no_grad()
def test_closed_channels_have_no_say(gated):
    network, images = gated
    outputs, records = network.forward_gated(images[:1])
    assert 0.2 < torch.cat([r.mask[0] for r in records]).mean() < 0.8
    for record in records:
        closed = record.mask[0] == 0
        layer = network.backbone.get_submodule(record.site.producer)
        layer.weight[closed] = 100 * torch.randn_like(layer.weight[closed])
        if layer.bias is not None:
            layer.bias[closed] = -7
    again, after = network.forward_gated(images[:1])
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(records, after))
    assert same(outputs, again)


@torch.no_grad()
def test_a_closed_gate_changes_the_output(gated):
    network, images = gated
    assert not same(network(images), network.backbone(images))
