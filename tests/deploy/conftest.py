"""Gated classifiers whose gates open different channels per image."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from fgc_mm.models import GatedBackbone

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)


@pytest.fixture(autouse=True)
def _kernel(request):
    if request.node.get_closest_marker('needs_kernel'):
        request.getfixturevalue('compiled')


def varied(size, count=8):
    """Images that differ in mean and contrast, so that gates differ."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(count, 3, size, size, generator=generator)
    contrast = torch.linspace(0.2, 3, count).reshape(-1, 1, 1, 1)
    shift = torch.randn(count, 3, 1, 1, generator=generator)
    return images * contrast + shift


def stir(network):
    """Norms as after training; of the gates' channels 30 % never open, 20 %
    always, the others for some images."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    for gate in network.gates.values():
        nn.init.normal_(gate.squeeze.weight, std=3)
        gate.expand.weight.data.mul_(3)
        draw = torch.rand(gate.expand.bias.shape)
        draw[0], draw[-1] = 0, 1  # each kind at every site
        gate.expand.bias.data[draw < 0.3] -= 1000
        gate.expand.bias.data[draw > 0.8] += 1000


@pytest.fixture(scope='session')
def gated():
    """Builds a backbone of varied gates: the module and its config."""

    def build(config, sites='auto'):
        torch.manual_seed(0)
        cfg = dict(
            type='fgc_mm.GatedBackbone', backbone=config, gate=GATE,
            sites=sites,
        )  # fmt: skip
        network = GatedBackbone(dict(config), GATE, sites).eval()
        stir(network)
        return network, cfg

    return build


@pytest.fixture(scope='session')
def classifier():
    """Builds such a classifier for images of 16 x 16; of ResNet-20, or
    of another backbone that ends in 32 channels."""

    def build(**backbone):
        torch.manual_seed(0)
        settings = dict(
            type='fgc_mm.GatedBackbone',
            backbone=dict(type='fgc_mm.CifarResNet', base_channels=8)
            | backbone,
            gate=GATE,
        )
        model = MODELS.build(
            dict(
                type='fgc_mm.GatedImageClassifier',
                backbone=settings,
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead', num_classes=10, in_channels=32
                ),
            )
        )
        model.eval()
        stir(model.backbone)
        nn.init.normal_(model.head.fc.weight)
        return model, settings

    return build


@pytest.fixture(scope='session')
def pictures():
    return varied
