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


class Chain(nn.Module):
    """Three convs; a function of the second one's output in between."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 6), conv(6, 4)
        self.d = conv(4, 2)
        self.between = between

    def forward(self, x):
        x = self.between(self.b(self.a(x).relu()).relu())
        return self.d(self.c(x).relu())


def by_largest(x):
    return x / x[x > 0].max()  # an error if nothing is positive


def whitened(x):
    rows = x.flatten(2)
    rows = rows - rows.mean(2, keepdim=True)
    covariance = rows @ rows.mT
    ridge = 1e-3 * covariance.diagonal(dim1=1, dim2=2).mean(1)
    # an error if all values are zero
    factor = torch.linalg.cholesky(
        covariance + ridge[:, None, None] * torch.eye(len(covariance[0]))
    )
    return torch.linalg.solve_triangular(factor, rows, upper=False).view_as(x)


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('between', [by_largest, whitened])
def test_a_function_that_fails_on_the_probe_ends_no_search(between, residual):
    torch.manual_seed(0)
    net = Chain(between)
    found = find_sites(net, dict(type='auto', residual=residual))
    assert [site.name for site in found] == ['a', 'c']


def test_a_network_that_fails_on_images_is_refused():
    with pytest.raises(FGCError, match=r'3x512x512 \(Boolean value of Tensor'):
        find_sites(Chain(lambda x: x * bool(x)))


def test_compiled_control_flow_is_refused():
    def between(x):
        return torch.cond(x.any(), lambda y: y * 3, lambda y: y * 2, (x,))

    rule = 'Chain calls torch.cond, which torch compiles, .* torch.where'
    for _ in range(2):  # the second time torch raises another error
        with pytest.raises(FGCError, match=rule):
            find_sites(Chain(between))


def clipped(x):
    return x * (5 / x.norm(dim=1, keepdim=True)).clamp(max=1)


class Residual(nn.Module):
    """A branch at whose end the channels are clipped together."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 6), conv(6, 4)
        self.relu, self.end = nn.ReLU(), Clip()

    def forward(self, x):
        x = self.a(x)
        return self.c((x + self.end(self.relu(self.b(x)))).relu())


class Clip(nn.Module):
    """Scales channels whose norm is large."""

    def forward(self, x):
        return clipped(x)


def test_channels_that_mix_where_they_are_large_are_no_site():
    found = find_sites(Chain(clipped))
    assert [site.name for site in found] == ['a', 'c']
    found = find_sites(Residual(), dict(type='auto', residual=True))
    ends = {site.name: site.branch_end for site in found}
    assert ends.get('b') != 'end'
