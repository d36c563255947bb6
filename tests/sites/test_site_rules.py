"""Site search on small networks."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites import SiteLayer, find_sites


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


def found(forward, residual=False, **layers):
    torch.manual_seed(0)
    sites = dict(type='auto', residual=residual)
    return {s.name: s for s in find_sites(Small(forward, **layers), sites)}


def paths(site):
    return [consumer.path for consumer in site.consumers]


def test_norm_activation_and_pooling_are_per_channel():
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
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('dw'))
    assert paths(sites['a']) == ['b']


def test_squeeze_excite_is_consumer_and_producer():
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
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('up'))
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
def test_operations_that_mix_channels_rule_out_a_site(mixing):
    layers = dict(a=conv(3, 8), mixing=mixing, b=conv(8, 4), c=conv(4, 2))
    sites = found(lambda m, x: m.c(m.b(m.mixing(m.a(x))).relu()), **layers)
    assert list(sites) == ['b']


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_a_channel_shuffle_gives_positions():
    sites = found(
        lambda m, x: m.c(m.b(m.dw(shuffled(m.a(x).relu()))).relu()),
        a=conv(3, 8),
        dw=conv(8, 8, groups=8),
        b=conv(8, 4),
        c=conv(4, 2),
    )
    order = (0, 4, 1, 5, 2, 6, 3, 7)
    assert sites['a'].consumers == (SiteLayer('b', order),)
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('dw', order))
    assert sites['b'].consumers == (SiteLayer('c'),)


def test_consumers_may_read_different_channels():
    def forward(m, x):
        left, right = m.a(x).relu().chunk(2, 1)
        return m.c(torch.cat([m.dw(left), right], 1)) + m.b(right)

    sites = found(
        forward,
        a=conv(3, 4),
        dw=conv(2, 2, groups=2),
        b=conv(2, 5),
        c=conv(4, 5),
    )
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('dw', (0, 1)))
    assert sites['a'].consumers == (SiteLayer('b', (2, 3)), SiteLayer('c'))


def test_a_gated_linear_unit_has_two_outputs_per_channel():
    def forward(m, x):
        gate, value = m.up(m.embed(x).flatten(2).transpose(1, 2)).chunk(2, -1)
        return m.down(gate.sigmoid() * value)

    sites = found(
        forward,
        embed=nn.Conv2d(3, 8, 16, 16),
        up=nn.Linear(8, 6),
        down=nn.Linear(3, 8),
    )
    assert sites['up'].channels == 3
    assert sites['up'].outputs == (SiteLayer('up', (0, 1, 2, 0, 1, 2)),)
    assert sites['up'].consumers == (SiteLayer('down'),)


def test_two_layers_that_are_multiplied_are_one_site():
    sites = found(
        lambda m, x: m.c(m.a(x) * m.b(x).sigmoid()),
        a=conv(3, 4),
        b=conv(3, 4),
        c=conv(4, 2),
    )
    assert list(sites) == ['a']
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('b'))


@pytest.mark.parametrize(
    'scale', [lambda f, s: f + s, lambda f, s: f * s + s.flip(1)]
)
def test_an_added_layer_is_not_a_scaling_layer(scale):
    sites = found(
        lambda m, x: m.d(m.c(scale(m.a(x), m.b(x).sigmoid())).relu()),
        a=conv(3, 4),
        b=conv(3, 4),
        c=conv(4, 2),
        d=conv(2, 2),
    )
    assert list(sites) == ['c']


@pytest.mark.parametrize(
    ('shape', 'positions'),
    [
        (lambda f: torch.cat([f, -f], 1).relu(), (0, 1, 2, 3, 0, 1, 2, 3)),
        (lambda f: f.sign(), None),
        (lambda f: (f - 3).relu(), None),
        (lambda f: nn.functional.hardshrink(f), None),
        (lambda f: f.relu().sqrt(), None),
        (lambda f: f.log(), None),
    ],
)
def test_saturating_activations_do_not_hide_consumers(shape, positions):
    sites = found(
        lambda m, x: (lambda f: m.b(f) + m.c(shape(f)))(m.a(x)),
        a=conv(3, 4),
        b=conv(4, 2),
        c=conv(len(positions or range(4)), 2),
    )
    assert sites['a'].consumers == (SiteLayer('b'), SiteLayer('c', positions))


def test_a_layer_that_chooses_between_channels_has_no_site():
    def forward(m, x):
        a, b = m.a(x), m.b(x)
        return m.d(m.c(torch.where(b > 0, a, 0 * a)).relu()) + m.e(b)

    layers = dict(a=conv(3, 4), b=conv(3, 4), c=conv(4, 4), d=conv(4, 2))
    assert 'a' not in found(forward, **layers, e=conv(4, 2))


@pytest.mark.parametrize('most', [1, 6])
def test_a_clamped_sum_of_many_is_still_a_sum(most):
    def forward(m, x):
        x = m.stem(x)
        for i in range(20):
            f = m.get_submodule(f'f{i}')(x)
            x = (x + f).clamp(0, most)
        return m.d(torch.cat([x, m.c(f)], 1))

    layers = {f'f{i}': conv(4, 4) for i in range(20)}
    layers |= dict(stem=conv(3, 4), c=conv(4, 3), d=conv(7, 2))
    assert list(found(forward, **layers)) == ['c']


def test_a_functional_layer_that_starts_at_zero_does_not_hide_a_sum():
    zero = nn.Linear(4, 4)
    nn.init.zeros_(zero.weight)

    def forward(m, x):
        f = m.a(x).mean((2, 3))
        return m.d(m.c(f + nn.functional.linear(f, m.zero.weight)).relu())

    layers = dict(a=conv(3, 4), c=nn.Linear(4, 4), d=nn.Linear(4, 2))
    assert list(found(forward, zero=zero, **layers)) == ['c']
    assert not zero.weight.any()


class Box:
    """A tensor in an object of an unknown class."""

    def __init__(self, x):
        self.x = x


class Sum(nn.Module):
    """A block that reads a box."""

    def __init__(self):
        super().__init__()
        self.b = conv(4, 4)

    def forward(self, x, box):
        return self.b(x) + box.x


def test_a_block_that_reads_an_unknown_object_is_not_cached():
    def forward(m, x):
        f = m.a(x).relu()
        return m.d(m.c(m.sum(m.other(x), Box(f))).relu()) + m.e(f)

    sites = found(
        forward,
        a=conv(3, 4), other=conv(3, 4), sum=Sum(), c=conv(4, 4),
        d=conv(4, 2), e=conv(4, 2),
    )  # fmt: skip
    assert set(sites) == {'other', 'c'}


class Encoder(nn.Module):
    """Stores a map for the decoder."""

    def __init__(self, keep):
        super().__init__()
        self.a, self.b, self.keep = conv(3, 4), conv(4, 4), keep

    def forward(self, x):
        f = self.a(x).relu()
        self.keep(f)
        return self.b(f).relu()


class Decoder(nn.Module):
    """Adds the map of an encoder."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(4, 4), conv(4, 2)
        self.maps = []

    def forward(self, x):
        kept = self.maps.pop() if self.maps else self.kept
        return self.b((self.a(x) + kept).relu())


def stacked(decoder):
    return decoder.maps.append


def written(decoder):
    return lambda f: setattr(decoder, 'kept', f)


@pytest.mark.parametrize('way', [stacked, written])
def test_a_skip_connection_through_attributes_is_found(way):
    decoder = Decoder()
    sites = found(
        lambda m, x: m.decoder(m.middle(m.encoder(x)).relu()),
        encoder=Encoder(way(decoder)),
        middle=conv(4, 4),
        decoder=decoder,
    )
    assert list(sites) == ['encoder.b', 'middle']
    assert not decoder.maps


@pytest.mark.parametrize(
    'norm',
    [
        nn.utils.weight_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_a_layer_with_a_parametrized_weight_is_a_layer(norm):
    layers = dict(a=norm(conv(3, 4)), b=norm(conv(4, 2)))
    assert list(found(lambda m, x: m.b(m.a(x).relu()), **layers)) == ['a']


def test_a_norm_that_starts_at_zero_does_not_hide_a_sum():
    layers = dict(a=conv(3, 4), b=conv(3, 4), norm=nn.BatchNorm2d(4))
    nn.init.zeros_(layers['norm'].weight)
    sites = found(
        lambda m, x: m.d(m.c(m.a(x) + m.norm(m.b(x))).relu()),
        **layers,
        c=conv(4, 4),
        d=conv(4, 2),
    )
    assert list(sites) == ['c']


def residual_block(m, x):
    x = m.stem(x).relu()
    return m.head((x + m.norm(m.b(m.a(x).relu()))).relu())


RESIDUAL = dict(
    stem=conv(3, 4), a=conv(4, 6), b=conv(6, 4), norm=nn.BatchNorm2d(4),
    head=conv(4, 2),
)  # fmt: skip


def test_residual_sites_are_masked_where_their_branch_ends():
    assert list(found(residual_block, **RESIDUAL)) == ['a']
    sites = found(residual_block, residual=True, **RESIDUAL)
    assert list(sites) == ['stem', 'a', 'b']
    assert [s.branch_end for s in sites.values()] == ['stem', None, 'norm']
    assert sites['b'].consumers == ()
    assert sites['b'].outputs == (SiteLayer('b'),)
    assert sites['stem'].consumers == (SiteLayer('a'),)
    assert str(sites['b']).startswith('b: 4 channels -> sum after norm (')


def test_a_site_has_its_share_of_the_macs():
    sites = found(residual_block, residual=True, **RESIDUAL)
    stem, a, b, head = 3 * 4, 4 * 6, 6 * 4, 4 * 2
    total = stem + a + b + head
    assert [s.macs_share for s in sites.values()] == pytest.approx(
        [(stem + a) / total, (a + b) / total, b / total]
    )


def test_a_layer_of_windows_is_no_site():
    def forward(m, x):
        x = m.embed(x).flatten(2).transpose(1, 2)
        windows = x.reshape(-1, 4, 8)
        return m.down(m.up(windows).relu()).reshape(x.shape)

    layers = dict(
        embed=nn.Conv2d(3, 8, 16, 16), up=nn.Linear(8, 6), down=nn.Linear(6, 8)
    )
    network = Small(forward, **layers)
    with pytest.raises(FGCError, match='Small has no layer whose'):
        find_sites(network, dict(type='auto', image_size=32))


def test_a_layer_that_runs_twice_is_no_site():
    layers = dict(a=conv(3, 3), b=conv(3, 6), c=conv(6, 2))
    sites = found(lambda m, x: m.c(m.b(m.a(m.a(x).relu())).relu()), **layers)
    assert list(sites) == ['b']


@pytest.mark.parametrize(
    'shared', [conv(4, 4), conv(4, 4, groups=4)], ids=['dense', 'depthwise']
)
def test_a_layer_that_two_maps_pass_ends_both_sites(shared):
    def forward(m, x):
        f, g = m.shared(m.a(x)), m.shared(m.b(x).relu())
        return m.d(m.c(f).relu()) + m.e(g)

    layers = dict(a=conv(3, 4), b=conv(3, 4), shared=shared, c=conv(4, 4))
    sites = found(forward, **layers, d=conv(4, 2), e=conv(4, 2))
    assert list(sites) == ['c']


def test_a_product_of_three_layers_is_no_site():
    sites = found(
        lambda m, x: m.e(m.d(m.a(x) * m.b(x) * m.c(x)).relu()),
        a=conv(3, 4), b=conv(3, 4), c=conv(3, 4), d=conv(4, 4), e=conv(4, 2),
    )  # fmt: skip
    assert list(sites) == ['d']


def test_the_search_restores_the_network():
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
    assert 'forward' not in vars(network.a)


def test_frozen_layers_do_not_hide_sites():
    layers = dict(a=conv(3, 8), b=conv(8, 4), c=conv(4, 2))
    network = Small(lambda m, x: m.c(m.b(m.a(x).relu()).relu()), **layers)
    network.a.requires_grad_(False)
    network.b.requires_grad_(False)
    with torch.no_grad():
        assert [site.name for site in find_sites(network)] == ['a', 'b']
    frozen = [p.requires_grad for p in network.parameters()]
    assert frozen == [False] * 4 + [True] * 2


def test_the_search_has_a_work_limit():
    def forever(m, x):
        while True:
            x = m.a(x)

    rule = r'computed more than 1e\+06 elements; allow more'
    with pytest.raises(FGCError, match=rule):
        find_sites(
            Small(forever, a=conv(3, 3)), dict(type='auto', max_work=1e6)
        )


def test_the_error_names_the_failing_module():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError('only squares')

    network = Small(
        lambda m, x: m.b(m.a(x)), a=conv(3, 3), b=nn.Sequential(Fails())
    )
    rule = r'^Small fails on an image of size 3x512x512 in b.0 \(only squ'
    with pytest.raises(FGCError, match=rule):
        find_sites(network)
    assert 'forward' not in vars(network.a)


def test_no_device_is_reseeded(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', seeds.append)
    # true on some machines without a driver, where no device is seeded
    monkeypatch.setattr(torch.cuda, '_is_in_bad_fork', lambda: False)
    found(lambda m, x: m.b(m.a(x)), a=conv(3, 4), b=conv(4, 2))
    assert seeds == [0]  # by found itself


@pytest.mark.parametrize(
    ('network', 'rule'),
    [
        (nn.Identity(), '^Identity has no parameters, so'),
        (
            nn.Sequential(nn.LazyConv2d(3, 3)),
            'uninitialised parameters .of a lazy',
        ),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1, device='meta')),
            'uninitialised parameters',
        ),
        (
            Small(lambda m, x: Box(m.b(m.a(x))), a=conv(3, 4), b=conv(4, 2)),
            'returns Box, which contains no tensor; it must',
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(network, rule):
    with pytest.raises(FGCError, match=rule):
        find_sites(network)


@pytest.mark.parametrize(
    ('option', 'rule'),
    [
        (dict(image_size=0), 'image_size=0 is not an image size; write'),
        (dict(image_size='64'), "image_size='64' is not an image size"),
        (dict(image_size=(8,)), r'image_size=\(8,\) is not an image size'),
        (dict(image_size=1.5), 'image_size=1.5 is not an image size'),
        (
            dict(max_work='5'),
            "max_work='5' is not a number of elements; write",
        ),
        (dict(max_work=-1), 'max_work=-1 is not a number'),
        (dict(max_work=None), 'max_work=None is not a number'),
    ],
)
def test_options_of_another_type_are_refused(option, rule):
    with pytest.raises(FGCError, match=rule):
        find_sites(Small(lambda m, x: m.a(x), a=conv(3, 3)), option)


@pytest.mark.parametrize(
    'sites', [dict(type='all'), dict(size=3), dict(seconds=5)]
)
def test_unknown_options_are_refused(sites):
    with pytest.raises(
        FGCError, match='has unknown keys or another type; write'
    ):
        find_sites(Small(lambda m, x: m.a(x), a=conv(3, 3)), sites)
