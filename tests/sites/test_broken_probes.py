"""Searches in which some probing passes fail."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites import find_sites


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Small(nn.Module):
    """Layers, and a forward pass given as a function."""

    def __init__(self, path, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.path = path

    def forward(self, x):
        return self.path(self, x)


def found(path, residual=False, **layers):
    torch.manual_seed(0)
    options = dict(type='auto', residual=residual)
    return {s.name: s for s in find_sites(Small(path, **layers), options)}


def five():
    """Convs in a row."""
    widths = dict(a=(3, 4), b=(4, 4), c=(4, 4), d=(4, 4), e=(4, 2))
    return {name: conv(*width) for name, width in widths.items()}


def refuse_large(x, most, images=slice(None)):
    if x[images].max() > most:
        raise ValueError('too large')
    return x


def first(x):
    """The first half of a batch."""
    return slice((len(x) + 1) // 2)


def test_a_layer_whose_large_values_make_the_network_fail_is_no_site():
    def path(m, x):
        x = refuse_large(m.c(m.b(m.a(x).relu()).relu()), 2)
        return m.e(m.d(x).relu())

    assert list(found(path, **five())) == ['a', 'b', 'd']


def test_a_layer_that_allows_no_change_does_not_hide_earlier_sites():
    def path(m, x):
        x = m.c(m.b(m.a(x).relu()).relu())
        # probing starts with small values in the first image
        return m.e(m.d(refuse_large(x, 0.06, first(x))).relu())

    assert list(found(path, **five())) == ['a', 'b']


def test_layers_that_fail_together_are_probed_separately():
    def path(m, x):
        f, g = m.a(x), m.b(x)
        refuse_large((f.amax((1, 2, 3)) * g.amax((1, 2, 3))), 1)
        return m.d(m.c(torch.cat([f, g], 1)).relu())

    layers = dict(a=conv(3, 4), b=conv(3, 4), c=conv(8, 4), d=conv(4, 2))
    assert list(found(path, **layers)) == ['a', 'b', 'c']


def test_a_module_with_two_output_shapes_is_not_held_fixed():
    def path(m, x):
        f = m.act(m.a(x))
        g = m.act(m.b(f.mean((2, 3))))
        return m.d(f + m.c(f) * g[..., None, None])

    layers = dict(act=nn.ReLU(), a=conv(3, 4), b=nn.Linear(4, 4))
    sites = found(path, True, **layers, c=conv(4, 4), d=conv(4, 2))
    assert sites['a'].branch_end == 'a'


def test_a_module_that_cannot_be_held_fixed_is_no_branch_end():
    def path(m, x):
        f = m.a(x)
        kept = m.norm(f)
        if not torch.equal(kept, f * 2):
            raise ValueError('held')
        return m.d(kept + m.c(kept))

    class Double(nn.Module):
        def forward(self, x):
            return x * 2

    layers = dict(norm=Double(), a=conv(3, 4), c=conv(4, 4), d=conv(4, 2))
    sites = found(path, True, **layers)
    assert sites['a'].branch_end == 'a'


def test_a_network_that_fails_with_zeros_has_no_scaling_layer():
    def path(m, x):
        f = m.a(x).relu()
        scale = m.down(f.mean((2, 3), keepdim=True))
        if scale.any() and not f.any():
            raise ZeroDivisionError('all zero')
        return m.c(m.b(f * scale.sigmoid()).relu())

    layers = dict(a=conv(3, 4), down=nn.Conv2d(4, 4, 1), b=conv(4, 4))
    sites = found(path, **layers, c=conv(4, 2))
    assert list(sites) == ['b']


def test_a_layer_that_is_called_by_keyword_is_named():
    def path(m, x):
        return m.b(input=m.a(x).relu())

    with pytest.raises(FGCError, match=r'^b of Small is called with input='):
        found(path, a=conv(3, 4), b=conv(4, 2))

    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    def keyword_x(m, x):
        return m.b(x=m.a(x).relu())

    with pytest.raises(FGCError, match=r'^b of Small is called with x='):
        found(keyword_x, a=conv(3, 4), b=Own(4, 2, 3))
