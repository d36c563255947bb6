"""Graphs and programs of random networks have the networks' outputs."""

import math
import random

import pytest
import torch
from torch import nn

from fgc_mm.deploy.changed_masks import MASK_PATTERNS, constant_masks
from fgc_mm.deploy.dynamic.programs import KernelProgram
from fgc_mm.deploy.graph.capture import CannotCapture, capture
from fgc_mm.deploy.graph.interpreter import interpret
from fgc_mm.deploy.graph.ir import Op
from fgc_mm.deploy.graph.memory import offsets_of
from fgc_mm.deploy.graph.network import (
    CapturedNetwork,
    listed_graph,
    network_graph,
)
from fgc_mm.deploy.graph.value_layout import (
    DimFactor,
    ValueLayout,
    extents,
    refined,
)
from fgc_mm.models import GatedBackbone

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)
needs_kernel = pytest.mark.needs_kernel


class Squeeze(nn.Module):
    """Squeeze-excite, its factors by one of several functions."""

    def __init__(self, channels, act):
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 1)
        self.up = nn.Conv2d(4, channels, 1)
        self.act = act

    def forward(self, x):
        means = x.mean((2, 3), keepdim=True)
        return x * self.act(self.up(self.down(means).relu()))


class Shuffle(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Halves(nn.Module):
    """Two halves, one of them changed, in the other order."""

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        return torch.cat([second, torch.tanh(first)], dim=1)


class Plus(nn.Module):
    """A constant of every channel, and the values again."""

    def __init__(self, channels):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x):
        return (x + self.shift) * 0.5 + x.abs()


class Beside(nn.Module):
    """Concatenation with another branch of the same values."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.back = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x):
        return self.back(torch.cat([self.conv(x), x], 1))


class Tokens(nn.Module):
    """A transformer block on the pixels, attention written out or not."""

    def __init__(self, channels, fused, window):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.down = nn.Linear(2 * channels, channels)
        self.fused, self.window = fused, window
        self.bias = nn.Parameter(torch.randn(1, 2, 1, 1))

    def attend(self, x):
        n, length, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, length, 3, 2, c // 2)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            scores = q * (c // 2) ** -0.5 @ k.transpose(-2, -1) + self.bias
            y = scores.softmax(-1) @ v
        return x + y.transpose(1, 2).reshape(n, length, c)

    def forward(self, x):
        n, c, h, w = x.shape
        s = self.window
        y = x.permute(0, 2, 3, 1)
        y = y.reshape(n, h // s, s, w // s, s, c).transpose(2, 3)
        y = self.attend(y.reshape(-1, s * s, c))
        y = y + self.down(nn.functional.gelu(self.up(self.norm(y))))
        y = y.reshape(n, h // s, w // s, s, s, c).transpose(2, 3)
        return y.reshape(n, h, w, c).permute(0, 3, 1, 2)


class PixelNorm(nn.Module):
    """Layer norm of the channels, written out."""

    def forward(self, x):
        x = x - x.mean(1, keepdim=True)
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()


class Windows(nn.Module):
    """The pixels around every pixel, and their sum."""

    def forward(self, x):
        n, c, h, w = x.shape
        around = nn.functional.unfold(x, 3, 1, 1)
        return around.view(n, c, 9, h * w).sum(2).view(x.shape) / 9


class Angles(nn.Module):
    """Attention of directions, scaled by each head, with distances."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(2, 1, 1) + 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q = x.flatten(2).view(n, 2, c // 2, h * w).mT
        k = nn.functional.normalize(q, dim=-1)
        scores = k @ k.mT * self.scale
        scores = scores.view(n, 2, h * w, h, w)
        rows, columns = q.mean(-1), q.square().mean(-1)
        scores = scores + (
            rows.view(n, 2, 1, h, w)[:, :, :, :, :1]
            + columns.view(n, 2, 1, h, w)[:, :, :, :1, :]
        )
        scores = scores.view(n, 2, h * w, h * w).softmax(-1)
        return (scores @ q).mT.reshape(x.shape)


class Quarters(nn.Module):
    """Convs and pools of the parts of a map, as images of their own."""

    def __init__(self, channels):
        super().__init__()
        self.each = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels
        )
        self.all = nn.Conv2d(channels, channels, 3, padding=1)
        self.again = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels
        )
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(4 * n, c, h // 2, w // 2)
        x = self.pool(self.again(self.all(self.each(x).relu()))) + x
        x = x.view(n, 2, 2, c, h // 2, w // 2).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(n, c, h, w)


def overwritten(x):
    y = x.clone()
    y[:, :3] = 2 * y[:, :3] + 1
    y[:, :, 2:4] = y[:, :, 4:6] * y[:, :, :1]
    return y


def products(x):
    """Of matrices of two leading dimensions."""
    n, c, h, w = x.shape
    y = x.view(n, 2, c // 4, 2, h * w).transpose(1, 2)
    return (y @ y.mT @ y).transpose(1, 2).reshape(x.shape) / 64


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


PALETTE = {
    'relu': lambda c: nn.ReLU(),
    'hardswish': lambda c: nn.Hardswish(),
    'silu': lambda c: nn.SiLU(),
    'gelu': lambda c: nn.GELU(),
    'prelu': lambda c: nn.PReLU(c),
    'clamp': lambda c: nn.ReLU6(inplace=True),
    'norm': lambda c: nn.BatchNorm2d(c),
    'groups': lambda c: nn.GroupNorm(2, c),
    'depthwise': lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    'dilated': lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2, groups=c),
    'max': lambda c: nn.MaxPool2d(3, 1, 1),
    'average': lambda c: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    'conv': lambda c: nn.Conv2d(c, c, 3, padding=1),
    'grouped': lambda c: nn.Conv2d(c, c, 1, groups=2),
    'squeeze': lambda c: Squeeze(c, torch.sigmoid),
    'hard squeeze': lambda c: Squeeze(c, nn.functional.hardsigmoid),
    'shuffle': lambda c: Shuffle(),
    'halves': lambda c: Halves(),
    'plus': lambda c: Plus(c),
    'pixels': lambda c: PixelNorm(),
    'softmax': lambda c: nn.Softmax2d(),
    'beside': lambda c: Beside(c),
    'attention': lambda c: Tokens(c, fused=True, window=8),
    'own attention': lambda c: Tokens(c, fused=False, window=8),
    'windows': lambda c: Tokens(c, fused=True, window=4),
    'unfold': lambda c: Windows(),
    'angles': lambda c: Angles(),
    'quarters': lambda c: Quarters(c),
    'roll': lambda c: Does(lambda x: x.roll((1, -3), (2, 3)).flip(1, 2)),
    'stack': lambda c: Does(lambda x: torch.stack((x, -x), 2).sum(2) + x),
    'overwritten': lambda c: Does(overwritten),
    'products': lambda c: Does(products),
    # a site of its own, which reads the channels of another one
    'multiplied': lambda c: nn.Sequential(
        nn.Conv2d(c, 2 * c, 3, padding=1, groups=c, bias=False),
        nn.Conv2d(2 * c, c, 1),
    ),
}


class Net(nn.Module):
    """Convs with some of the modules between, and a shortcut."""

    def __init__(self, names, channels=8):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.between = nn.ModuleList(PALETTE[n](channels) for n in names)
        self.last = nn.Conv2d(channels, channels, 3, 2, 1)
        self.end = nn.Conv2d(channels, 6, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.first(x)
        for module in self.between:
            y = module(y)
        return (self.end(self.last(y + 0).relu()),)


def network(names):
    """Gated, its norms and gates as after some training."""
    torch.manual_seed(len(names))
    sites = dict(type='auto', image_size=8)
    gated = GatedBackbone(Net(names), GATE, sites).eval()
    for module in gated.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for gate in gated.gates.values():
        nn.init.normal_(gate.expand.bias)
        nn.init.normal_(gate.expand.weight)
    return gated


def sequences():
    """Every module alone, and some random orders of three."""
    draw = random.Random(0)
    alone = [(name,) for name in PALETTE]
    return alone + [tuple(draw.sample([*PALETTE], 3)) for _ in range(20)]


@pytest.mark.parametrize('names', sequences(), ids='-'.join)
@torch.no_grad()
def test_networks_and_their_graphs(names):
    """Channels that are not computed are nan, and never read."""
    gated = network(names)
    image = torch.randn(1, 3, 8, 8)
    graph = listed_graph(network_graph(gated, image), gated.sites)
    (want,), records = gated.forward_gated(image)
    values = interpret(graph, image)
    got = values[graph.outputs[0]]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    for record, site in zip(records, graph.sites, strict=True):
        torch.testing.assert_close(values[site.decision], record.mask)
    for opened in MASK_PATTERNS.values():
        masks = [
            opened(site.channels, number)[None].float()
            for number, site in enumerate(gated.sites)
        ]
        with constant_masks(gated, opened):
            (want,), _ = gated.forward_gated(image)
        got = interpret(graph, image, masks)[graph.outputs[0]]
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert any(not site.why for site in graph.sites)  # something is skipped


@needs_kernel
@pytest.mark.parametrize('names', sequences(), ids='-'.join)
@torch.no_grad()
def test_networks_and_their_programs(names):
    gated = network(names)
    images = torch.randn(3, 3, 8, 8)
    graph = network_graph(gated, images[:1])
    everything = {site.name: 'all' for site in gated.sites}
    for dense in ({}, everything):
        program = KernelProgram(listed_graph(graph, gated.sites, dense))
        assert program.fallbacks == []
        for image in images.split(1):
            (want,), records = gated.forward_gated(image)
            (got,), decisions = program.run(image)
            torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
            for record, (mask, logits, _) in zip(records, decisions):
                assert torch.equal(mask, record.mask)
                torch.testing.assert_close(
                    logits, record.logits, atol=1e-4, rtol=1e-4
                )


def test_norms_patterns_and_activations_are_folded_or_fused():
    gated = network(('norm', 'own attention', 'hardswish'))
    graph = network_graph(gated, torch.randn(1, 3, 8, 8))
    kinds = [node.op for node in listed_graph(graph, gated.sites).nodes]
    assert Op.ATTENTION in kinds
    for gone in (Op.AFFINE, Op.MATMUL, Op.SOFTMAX, Op.MASK):
        assert gone not in kinds, gone


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Silent(nn.Module):
    """As some of mmpretrain's backbones: train() returns nothing."""

    def train(self, mode=True):
        super().train(mode)

    def forward(self, x):
        return x.relu()


def test_a_network_whose_train_returns_nothing():
    image = torch.randn(1, 3, 4, 4)
    [graph] = capture(Silent(), image)
    got = interpret(graph, image)[graph.outputs[0]]
    assert torch.equal(got, image.relu())


class InPlace(nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        y[:, :1] = x[:, :1]
        y[:, 1:] = x[:, 1:]
        return y.add_(1)


def test_code_that_reads_values_is_refused():
    with pytest.raises(CannotCapture, match='values of images'):
        capture(Branching(), torch.randn(1, 3, 4, 4))


def test_changes_in_place_are_right_or_refused():
    image = torch.randn(1, 3, 4, 4)
    try:
        [graph] = capture(InPlace(), image)
    except CannotCapture as error:
        assert 'in place' in str(error)
        return
    got = interpret(graph, image)[graph.outputs[0]]
    torch.testing.assert_close(got, InPlace()(image))


def numbers_of(layout, box):
    """The position of every element of a tensor, by enumeration."""
    _, height, width = box
    found = torch.zeros(layout.shape, dtype=torch.long)
    for index in torch.cartesian_prod(
        *(torch.arange(n) for n in layout.shape)
    ).reshape(-1, len(layout.shape)):
        at = list(layout.start)
        for i, dim in zip(index.tolist(), layout.dims):
            for atom in reversed(dim):
                i, part = divmod(i, atom.size)
                at = [a + part * s for a, s in zip(at, atom.step)]
        found[tuple(index)] = (at[0] * height + at[1]) * width + at[2]
    return found


def test_layouts_are_views_of_torch():
    """Layout operations agree with torch's view operations."""
    box = (4, 3, 6)
    layout = ValueLayout(
        0,
        (
            (DimFactor(4, (1, 0, 0)),),
            (DimFactor(3, (0, 1, 0)),),
            (DimFactor(6, (0, 0, 1)),),
        ),
    )
    x = torch.arange(math.prod(box)).reshape(box)
    cases = [
        (layout.permuted((2, 0, 1)), x.permute(2, 0, 1)),
        (layout.reshaped((2, 2, 9, 2)), x.reshape(2, 2, 9, 2)),
        (layout.reshaped((72,)), x.reshape(72)),
        (layout.sliced(2, 1, 2, 3), x[:, :, 1:6:3]),
        (layout.selected(1, 2), x[:, 2]),
        (layout.sliced(0, 3, 4, -1), x.flip(0)),
        (
            layout.permuted((1, 0, 2)).reshaped((3, 8, 3)),
            x.permute(1, 0, 2).reshape(3, 8, 3),
        ),
    ]
    for got, want in cases:
        assert torch.equal(numbers_of(got, box), want)


@torch.no_grad()
def test_a_norm_after_a_scale_is_folded_into_it():
    """The scale has no shift of its own."""
    scale = torch.linspace(0.5, 2, 3)[:, None, None]
    norm = nn.BatchNorm2d(3)
    norm.running_mean.normal_()
    layers = nn.Sequential(nn.ReLU(), Does(lambda x: x * scale), norm).eval()
    image = torch.randn(1, 3, 4, 4)
    graph = network_graph(layers, image)
    assert [node.op for node in graph.nodes].count(Op.AFFINE) == 1
    got = interpret(graph, image)[graph.outputs[0]]
    torch.testing.assert_close(got, layers(image))


def test_factors_of_two_descriptions():
    first = [DimFactor(6, (0, 0, 1))]
    second = [DimFactor(2, (1, 0, 0)), DimFactor(3, (0, 1, 0))]
    assert refined(first, second) == [
        (2, (0, 0, 3), (1, 0, 0)),
        (3, (0, 0, 1), (0, 1, 0)),
    ]
    assert refined(first, [DimFactor(4, (1, 0, 0))]) is None
    assert extents([DimFactor(2, (0, 3, 0)), DimFactor(3, (0, 1, 0))]) == (
        1,
        6,
        1,
    )
    assert extents([DimFactor(2, (0, 2, 0))]) is None  # gaps
    assert extents([DimFactor(2, (0, 0, 0))]) is None  # the same number twice


def test_values_in_use_at_once_never_overlap():
    draw = random.Random(1)
    for _ in range(50):
        count = draw.randint(1, 12)
        sizes = [draw.randint(0, 40) for _ in range(count)]
        live_ranges = [sorted(draw.sample(range(20), 2)) for _ in range(count)]
        offsets, whole = offsets_of(sizes, [tuple(x) for x in live_ranges])
        for i in range(count):
            assert offsets[i] + sizes[i] <= whole
            for j in range(i):
                together = (
                    live_ranges[i][0] <= live_ranges[j][1]
                    and live_ranges[j][0] <= live_ranges[i][1]
                )
                apart = (
                    offsets[i] + sizes[i] <= offsets[j]
                    or offsets[j] + sizes[j] <= offsets[i]
                )
                assert apart or not together or 0 in (sizes[i], sizes[j])


class Doubling(nn.Module):
    """A head that changes its input in place."""

    def forward(self, features):
        (x,) = features
        return x.mul_(2).mean((2, 3))


@torch.no_grad()
def test_one_pass_gives_features_and_scores_with_and_without_gates():
    gated = network(('norm', 'squeeze'))
    image = torch.randn(1, 3, 8, 8)
    captured = CapturedNetwork(gated, image, [Doubling()])
    features = gated.forward_gated(image)[0][0]
    (plain,) = gated.backbone(image)
    wanted = {
        (False, True): features,
        (True, True): Doubling()([features.clone()]),
        (False, False): plain,
        (True, False): Doubling()([plain.clone()]),
    }
    assert not torch.allclose(features, plain, atol=1e-2)
    for (whole, gates), want in wanted.items():
        graph = captured.graph(whole, gates)
        assert bool(graph.sites) == gates
        graph = listed_graph(graph, gated.sites if gates else ())
        got = interpret(graph, image)[graph.outputs[0]]
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@needs_kernel
@pytest.mark.parametrize('size', [1, 2, (4, 1), 3])
@torch.no_grad()
def test_adaptive_max_pools(size):
    """Native, unless their windows overlap (8 rows in 3)."""
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(size),
        nn.Conv2d(4, 2, 1),
    ).eval()  # fmt: skip
    image = torch.randn(1, 3, 8, 8)
    program = KernelProgram(listed_graph(network_graph(layers, image), ()))
    assert bool(program.fallbacks) == (size == 3)
    torch.testing.assert_close(program.run(image)[0], layers(image))


def spread(x):
    """The mean of every channel, at every pixel."""
    return x.mean((2, 3), keepdim=True).expand_as(x)


@needs_kernel
@pytest.mark.parametrize('function', [
    lambda x: x[:, 1:].relu(),
    lambda x: x[:, [1]],
    lambda x: x.flip(1, 2, 3) + x,
    lambda x: torch.cat([spread(x), x], 1),
    lambda x: nn.functional.pad(spread(x), (1, 1, 1, 1)),
    lambda x: spread(x)[:, [2, 0, 1, 1]],
])  # fmt: skip
@torch.no_grad()
def test_parts_of_an_image_and_expanded_tensors(function):
    network = Does(lambda x: (function(x),))
    image = torch.randn(1, 3, 8, 8)
    program = KernelProgram(listed_graph(network_graph(network, image)))
    assert program.fallbacks == []
    torch.testing.assert_close(program.run(image)[0], network(image))


@pytest.mark.parametrize('multiple', [1, 2])
@torch.no_grad()
def test_a_site_may_open_what_another_closes(multiple):
    """A depthwise conv without a bias has a site before and one after it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8 * multiple, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8 * multiple, 6, 1),
    )
    sites = dict(type='auto', image_size=12, every_conv=multiple == 1)
    gated = GatedBackbone(net, GATE, sites).eval()
    assert [site.name for site in gated.sites][:2] == ['0', '2']
    for gate in gated.gates.values():
        gate.expand.bias.fill_(1000)
    first = gated.gates['0']  # closes six channels of dark images
    first.squeeze.weight.fill_(1)
    first.expand.weight.fill_(500)
    first.expand.bias.fill_(-0.01)
    first.expand.bias[:2] = 1000
    bright, dark = torch.rand(1, 3, 12, 12) + 1, -torch.rand(1, 3, 12, 12) - 1
    captured = network_graph(gated, bright)
    for dense in ({}, {'0': 'chosen'}, {'2': 'chosen'}):
        graph = listed_graph(captured, gated.sites, dense)
        for image, opened in ((bright, 8), (dark, 2)):
            want, records = gated.forward_gated(image)
            assert records[0].mask.sum() == opened
            got = interpret(graph, image)[graph.outputs[0]]
            torch.testing.assert_close(got, want)
