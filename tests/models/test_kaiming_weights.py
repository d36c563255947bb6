"""The initialisation of the published code."""

from math import sqrt
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import initialize
from mmpretrain.registry import MODELS
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.gates import BinaryConcreteGate

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'fgc_resnet20_cifar10.py'


def test_weights_are_he_normal_and_biases_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.Linear(128, 256))
    biases = [layer.bias.clone() for layer in model]
    layers = ['Conv2d', 'Linear']
    initialize(model, dict(type='fgc_mm.KaimingWeights', layer=layers))
    for layer, bias, fan_in in zip(model, biases, (72, 128), strict=True):
        std = layer.weight.std().item()
        assert std == pytest.approx(sqrt(2 / fan_in), rel=0.05)
        assert torch.equal(layer.bias, bias)


def test_only_the_named_layers():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    weight = model[1].weight.clone()
    initialize(model, dict(type='fgc_mm.KaimingWeights', layer='Conv2d'))
    assert torch.equal(model[1].weight, weight)


@pytest.mark.parametrize(
    ('weight_init', 'low', 'high'),
    [('kaiming_normal', 0.85, 1.15), ('torch', 0.3, 0.5)],
)
def test_spread_of_the_first_logits(weight_init, low, high):
    """Published: about 1.0; with torch's own initialisation 0.4."""
    torch.manual_seed(0)
    gates = [
        BinaryConcreteGate(64, 64, weight_init=weight_init, init_bias=None)
        for _ in range(20)
    ]
    x = torch.randn(256, 64, 1, 1)
    spread = torch.stack([gate(x).logits.std() for gate in gates]).mean()
    assert low < spread < high


def test_bias_as_torch_makes_it_or_as_given():
    assert BinaryConcreteGate(4, 9, init_bias=None).expand.bias.std() > 0.05
    bias = BinaryConcreteGate(4, 9, init_bias=1.5).expand.bias
    assert torch.equal(bias, torch.full((9,), 1.5))


def test_an_unknown_initialisation():
    with pytest.raises(FGCError, match=r"weight_init='xavier' .* choose"):
        BinaryConcreteGate(4, 9, weight_init='xavier')


def test_the_reference_config_uses_it():
    cfg = Config.fromfile(CONFIG)
    model = MODELS.build(cfg.model)
    model.init_weights()
    weight = model.head.fc.weight
    assert weight.std().item() == pytest.approx(sqrt(2 / 64), rel=0.1)
    assert model.head.fc.bias.abs().max() > 0
    gate = next(iter(model.backbone.gates.values()))
    assert gate.expand.bias.abs().max() > 0
