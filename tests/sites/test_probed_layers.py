"""Layers and functions that need care when a network is probed."""

import pytest
import torch
from mmcv.cnn.bricks import ConvAWS2d
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites import find_sites


class MaskedConv(nn.Conv2d):
    """Multiplies its weight by a buffer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer('kept', torch.ones_like(self.weight))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.kept, self.bias)


class ClippedConv(nn.Conv2d):
    """Uses the value of its weight."""

    def forward(self, x):
        largest = self.weight.abs().max().item()
        return self._conv_forward(x, self.weight / largest, self.bias)


@pytest.mark.parametrize('conv', [ConvAWS2d, MaskedConv, ClippedConv])
def test_a_conv_may_compute_its_weight(conv):
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 3))
    assert [site.name for site in find_sites(net)] == ['0']


def conv(channels_in, channels):
    return nn.Conv2d(channels_in, channels, 1)


def test_a_compiled_module_runs_as_it_is():
    scripted = torch.jit.script(nn.Sequential(conv(4, 6), nn.ReLU()))
    net = nn.Sequential(
        conv(3, 4), scripted, conv(6, 8), torch.jit.script(nn.ReLU()),
        conv(8, 2),
    )  # fmt: skip
    assert [site.name for site in find_sites(net)] == ['2']


@pytest.mark.parametrize('compiled', [torch.jit.script, torch.compile])
def test_a_compiled_network_is_refused(compiled):
    net = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2))
    with pytest.raises(FGCError, match='give the network before it is comp'):
        find_sites(compiled(net))
