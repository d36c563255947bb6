"""Residual sites whose channels are mixed behind a depthwise conv."""

import pytest
import torch
from torch import nn

from fgc_mm.models import GatedBackbone
from fgc_mm.sites import SiteLayer, find_sites

RESIDUAL = dict(type='auto', residual=True)


class Block(nn.Module):
    """Stem, then a sum with a branch that begins with a depthwise conv."""

    def __init__(self, norm):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = norm
        self.up = nn.Conv2d(6, 8, 1)
        self.down = nn.Conv2d(8, 6, 1)

    def forward(self, x):
        x = self.stem(x)
        return x + self.down(self.up(self.norm(self.depthwise(x))).relu())


class Response(nn.Module):
    """Global response normalisation."""

    def forward(self, x):
        strength = x.norm(dim=(2, 3), keepdim=True)
        return x * strength / (strength.mean(1, keepdim=True) + 1e-6) + x


@pytest.mark.parametrize(
    ('norm', 'belongs'),
    [
        (nn.GroupNorm(1, 6), False),
        (Response(), False),
        (nn.Softmax(1), False),
        (nn.BatchNorm2d(6), True),
    ],
    ids=['layer', 'response', 'softmax', 'batch'],
)
@torch.no_grad()
def test_a_depthwise_conv_before_mixing_is_not_part_of_the_site(norm, belongs):
    torch.manual_seed(0)
    network = Block(norm)
    (site, *_) = find_sites(network, RESIDUAL)
    assert site.name == site.branch_end == 'stem'
    expected = (SiteLayer('stem'), SiteLayer('depthwise'))[: 1 + belongs]
    assert site.outputs == expected
    assert no_influence(network)


def no_influence(network):
    """Whether weights of closed channels do not change the output."""
    gated = GatedBackbone(
        network, dict(type='fgc_mm.BinaryConcreteGate'), RESIDUAL
    ).eval()
    images = torch.randn(1, 3, 16, 16)
    before, records = gated.forward_gated(images)
    for record in records:
        closed = record.mask[0] == 0
        assert closed.any() and not closed.all()
        for output in record.site.outputs:
            layer = network.get_submodule(output.path)
            layer.weight[closed], layer.bias[closed] = 50.0, -7.0
    return torch.equal(before, gated(images))
