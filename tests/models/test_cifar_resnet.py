"""The 6n+2 networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgc_mm.errors import FGCError
from fgc_mm.models import CifarResNet
from fgc_mm.models.cifar_resnet import BasicBlock


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize('depth', CifarResNet.depths)
def test_depth_counts_the_convs_and_the_classifier(depth):
    with torch.device('meta'):
        network = CifarResNet(depth)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) + 1 == depth


def test_parameters_are_those_of_the_publication():
    # He et al., table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M with the classifier
    fc = 64 * 10 + 10
    sizes = {d: count(CifarResNet(d)) + fc for d in (20, 32, 44, 56)}
    assert sizes == {20: 269722, 32: 464154, 44: 658586, 56: 853018}


@pytest.mark.parametrize('size', [8, 32, 9])
def test_shapes(size):
    network = CifarResNet(20, in_channels=1, base_channels=4)
    (out,) = network(torch.randn(2, 1, size, size))
    quarter = -(-size // 4)
    assert out.shape == (2, 16, quarter, quarter)


@pytest.mark.parametrize('channels', [(4, 8), (3, 6), (3, 8)])
@pytest.mark.parametrize('size', [6, 7])
def test_the_shortcut_takes_every_second_pixel_between_zeros(channels, size):
    inputs, outputs = channels
    block = BasicBlock(inputs, outputs, 2).eval()
    nn.init.zeros_(block.conv2.weight)  # only the shortcut is left
    x = torch.rand(2, inputs, size, size)
    out, half = block(x), -(-size // 2)
    before = (outputs - inputs) // 2
    want = torch.zeros(2, outputs, half, half)
    for c in range(inputs):
        for i in range(half):
            for j in range(half):
                want[:, before + c, i, j] = x[:, c, 2 * i, 2 * j]
    assert torch.equal(out, want)


def test_a_block_is_conv_norm_relu_conv_norm_plus_input():
    torch.manual_seed(0)
    block = BasicBlock(4, 4, 1).eval()
    nn.init.normal_(block.bn1.bias)
    x = torch.randn(2, 4, 5, 5)
    inner = block.bn1(F.conv2d(x, block.conv1.weight, padding=1)).clamp(min=0)
    outer = block.bn2(F.conv2d(inner, block.conv2.weight, padding=1))
    torch.testing.assert_close(block(x), (outer + x).clamp(min=0))


def test_an_odd_number_of_channels_runs():
    (out,) = CifarResNet(20, base_channels=3)(torch.randn(2, 3, 8, 8))
    assert out.shape == (2, 12, 2, 2)


def test_modes_return_the_network():
    network = CifarResNet(20, base_channels=2)
    assert network.eval() is network and not network.layer1.training
    assert network.train() is network and network.layer1.training


def test_convs_start_he_normal():
    torch.manual_seed(0)
    network = CifarResNet(20)
    network.init_weights()
    for conv in (network.conv1, network.layer3[2].conv2):
        fan = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx(
            (2 / fan) ** 0.5, rel=0.1
        )


@pytest.mark.parametrize('depth', [18, 21, 0])
def test_another_depth_is_refused(depth):
    with pytest.raises(FGCError, match=f'^depth={depth} .*20, 32, 44, 56'):
        CifarResNet(depth)
