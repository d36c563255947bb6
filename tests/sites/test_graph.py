"""Discovery on networks small enough to see through."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites import find_sites


class Small(nn.Module):
    """Layers under short names, and a forward pass given as a function."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.path = forward

    def forward(self, x):
        return self.path(self, x)


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def found(forward, **layers):
    torch.manual_seed(0)
    return {s.name: s for s in find_sites(Small(forward, **layers))}


def paths(site):
    return [consumer.path for consumer in site.consumers]


def test_norm_activation_and_pooling_lie_between():
    sites = found(
        lambda m, x: m.b(m.pool(m.act(m.norm(m.a(x))))),
        a=conv(3, 8),
        norm=nn.BatchNorm2d(8),
        act=nn.Hardswish(),
        pool=nn.MaxPool2d(2),
        b=conv(8, 4),
    )
    assert list(sites) == ['a']
    assert paths(sites['a']) == ['b']
    assert sites['a'].consumers[0].positions is None
    assert (sites['a'].in_channels, sites['a'].channels) == (3, 8)


def test_several_consumers_share_a_site():
    sites = found(
        lambda m, x: (lambda f: m.b(f) + m.c(f))(m.a(x).relu()),
        a=conv(3, 8),
        b=conv(8, 4),
        c=conv(8, 4, 1),
    )
    assert list(sites) == ['a']
    assert paths(sites['a']) == ['b', 'c']


def test_a_depthwise_conv_belongs_to_the_site():
    sites = found(
        lambda m, x: m.b(m.dw(m.a(x).clamp(0, 6)).clamp(0, 6)),
        a=conv(3, 8, 1),
        dw=conv(8, 8, groups=8),
        b=conv(8, 4, 1),
    )
    assert sites['a'].outputs == ('a', 'dw')
    assert paths(sites['a']) == ['b']


def test_squeeze_excite_consumes_and_produces():
    def forward(m, x):
        f = m.a(x).relu()
        scale = m.up(m.down(f.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return m.b(f * scale)

    sites = found(
        forward,
        a=conv(3, 8),
        down=conv(8, 2, 1),
        up=conv(2, 8, 1),
        b=conv(8, 4),
    )
    assert set(sites) == {'a', 'down'}
    assert paths(sites['a']) == ['down', 'b']
    assert sites['a'].outputs == ('a', 'up')
    assert paths(sites['down']) == ['up']


def test_concatenation_gives_positions():
    def forward(m, x):
        f, g = m.a(x).relu(), m.b(x).relu()
        return m.d(torch.cat([f, m.c(f).relu(), g], 1))

    sites = found(
        forward, a=conv(3, 2), b=conv(3, 3), c=conv(2, 4), d=conv(9, 5)
    )
    positions = {
        name: {c.path: c.positions for c in site.consumers}
        for name, site in sites.items()
    }
    assert positions == {
        'a': {'c': None, 'd': (0, 1, -1, -1, -1, -1, -1, -1, -1)},
        'b': {'d': (-1, -1, -1, -1, -1, -1, 0, 1, 2)},
        'c': {'d': (-1, -1, 0, 1, 2, 3, -1, -1, -1)},
    }


def test_a_flattened_map_repeats_its_channels():
    class Pooled(nn.AdaptiveAvgPool2d):
        pass

    sites = found(
        lambda m, x: m.b(m.pool(m.a(x).relu()).flatten(1)),
        a=conv(3, 4),
        pool=Pooled(2),
        b=nn.Linear(16, 5),
    )
    (consumer,) = sites['a'].consumers
    assert consumer.positions == tuple(c for c in range(4) for _ in range(4))


def test_the_hidden_layer_of_an_mlp_is_a_site_and_its_sum_is_none():
    def forward(m, x):
        tokens = m.embed(x).flatten(2).transpose(1, 2)
        return tokens + m.down(m.act(m.up(m.norm(tokens))))

    sites = found(
        forward,
        embed=nn.Conv2d(3, 8, 16, 16),
        norm=nn.LayerNorm(8),
        up=nn.Linear(8, 24),
        act=nn.GELU(),
        down=nn.Linear(24, 8),
    )
    assert list(sites) == ['up']


@pytest.mark.parametrize(
    'mixing', [nn.GroupNorm(2, 8), nn.Softmax(1), nn.LocalResponseNorm(3)]
)
def test_what_mixes_channels_ends_a_site(mixing):
    layers = dict(a=conv(3, 8), mixing=mixing, b=conv(8, 4), c=conv(4, 2))
    sites = found(lambda m, x: m.c(m.b(m.mixing(m.a(x))).relu()), **layers)
    assert list(sites) == ['b']


def test_a_shuffle_that_the_graph_does_not_see_is_no_site():
    def forward(m, x):
        f = m.a(x).relu()
        n, c, h, w = f.shape
        mixed = f.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.c(m.b(mixed).relu())

    sites = found(forward, a=conv(3, 8), b=conv(8, 4), c=conv(4, 2))
    assert list(sites) == ['b']


def test_a_layer_that_runs_twice_is_no_site():
    layers = dict(a=conv(3, 3), b=conv(3, 6), c=conv(6, 2))
    sites = found(lambda m, x: m.c(m.b(m.a(m.a(x).relu())).relu()), **layers)
    assert list(sites) == ['b']


def test_the_search_leaves_the_network_as_it_was():
    network = Small(
        lambda m, x: m.b(m.norm(m.a(x))),
        a=conv(3, 8), norm=nn.BatchNorm2d(8), b=conv(8, 4),
    )  # fmt: skip
    network.norm.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    find_sites(network)
    assert network.training and not network.norm.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(
        torch.equal(v, before[k]) for k, v in network.state_dict().items()
    )
    assert not network.a._forward_hooks and not network.b._forward_pre_hooks


def test_a_frozen_part_hides_no_site():
    layers = dict(a=conv(3, 8), b=conv(8, 4), c=conv(4, 2))
    network = Small(lambda m, x: m.c(m.b(m.a(x).relu()).relu()), **layers)
    network.a.requires_grad_(False)
    network.b.requires_grad_(False)
    with torch.no_grad():
        assert [site.name for site in find_sites(network)] == ['a', 'b']
    frozen = [p.requires_grad for p in network.parameters()]
    assert frozen == [False] * 4 + [True] * 2


def test_the_search_is_bounded_in_time():
    def forever(m, x):
        while True:
            x = m.a(x)

    with pytest.raises(FGCError, match=r'took more than 0.2 s; allow more'):
        find_sites(
            Small(forever, a=conv(3, 3)), dict(type='auto', seconds=0.2)
        )


def test_what_cannot_be_traced_is_named():
    def fails(*_):
        raise RuntimeError('only squares')

    with pytest.raises(FGCError, match=r'^Small cannot be traced.*squares'):
        find_sites(Small(fails, a=conv(3, 3)))


@pytest.mark.parametrize('sites', [dict(type='all'), dict(size=3)])
def test_unknown_options_are_refused(sites):
    with pytest.raises(FGCError, match='is not understood; write'):
        find_sites(Small(lambda m, x: m.a(x), a=conv(3, 3)), sites)
