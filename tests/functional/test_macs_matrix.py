"""The matrices against the count layer by layer."""

import pytest
import torch

from fgc_mm.functional import LayerMACs, MACsTable
from fgc_mm.functional.macs import macs_per_image, open_pairs
from fgc_mm.functional.macs_matrix import (
    MOST_TABLES,
    KeptMatrices,
    MACsMatrices,
)

WHOLE_0, WHOLE_1 = (0, None), (1, None)
FIRST = (0, (-1, -1, 0, 1, 2, 3, *[-1] * 7))
SECOND = (1, (*[-1] * 6, 0, 1, 2, 3, 4, 5, 5))
OVERLAP = (1, (0, 1, 2, 3, 4, 5, *[-1] * 7))
DEPTHWISE_6 = (6, 6, 6, (WHOLE_1,), (WHOLE_1,))


def layer(inputs, outputs, groups, in_sites=(), out_sites=(), unit=7):
    return LayerMACs(
        'x', 'backbone', unit, inputs, outputs, groups, in_sites, out_sites
    )


CASES = {
    'no site': [(3, 5, 1)],
    'outputs': [(3, 4, 1, (), (WHOLE_0,))],
    'inputs': [(6, 3, 1, (WHOLE_1,))],
    'both': [(4, 6, 1, (WHOLE_0,), (WHOLE_1,))],
    'same site': [(4, 4, 1, (WHOLE_0,), (WHOLE_0,))],
    'joined inputs': [(13, 5, 1, (FIRST, SECOND))],
    'several sites on one channel': [(13, 5, 1, (FIRST, OVERLAP))],
    'depthwise': [DEPTHWISE_6],
    'depthwise, one end': [(6, 6, 6, (WHOLE_1,))],
    'depthwise, places': [(13, 13, 13, (SECOND,), (SECOND,))],
    'groups': [(4, 6, 2, (WHOLE_0,), (WHOLE_1,))],
    'one channel': [(1, 6, 1, (), (WHOLE_1,))],
    'many': [
        (3, 4, 1, (), (WHOLE_0,)), (4, 6, 1, (WHOLE_0,), (WHOLE_1,)),
        DEPTHWISE_6, (4, 6, 2, (WHOLE_0,), (WHOLE_1,)), (13, 5, 1, (FIRST,)),
        (9, 9, 1),
    ],
}  # fmt: skip


def layer_by_layer(table, opened):
    """The count for open channels that may be fractions."""
    fixed = sum(layer.dense for layer in table.layers if not layer.sites)
    gated = [layer for layer in table.layers if layer.sites]
    pairs = [layer.unit * open_pairs(layer, opened) for layer in gated]
    return sum(pairs, torch.full_like(opened[0][:, 0], fixed))


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('soft', [False, True])
def test_value_and_gradient_are_those_of_the_layers(name, soft):
    layers = tuple(layer(*case) for case in CASES[name])
    table = MACsTable(layers, ('a', 'b'), (4, 6))
    generator = torch.Generator().manual_seed(0)
    opened = torch.rand(5, 10, generator=generator, dtype=torch.float64)
    opened = opened if soft else (opened > 0.5).double()
    grads = []
    for count in (MACsMatrices(table), None):
        x = opened.clone().requires_grad_()
        parts = x.split(table.channels, 1)
        macs = count(x) if count else layer_by_layer(table, parts)
        (macs.square().sum() + 0 * x.sum()).backward()
        grads.append((macs.detach(), x.grad))
    torch.testing.assert_close(*(value for value, _ in grads))
    torch.testing.assert_close(*(grad for _, grad in grads))
    if not soft:
        assert torch.equal(*(value for value, _ in grads))


def test_layers_that_are_counted_separately():
    def others(name):
        layers = tuple(layer(*case) for case in CASES[name])
        return MACsMatrices(MACsTable(layers, ('a', 'b'), (4, 6))).others

    few = [name for name in CASES if others(name)]
    assert few == [
        'several sites on one channel', 'depthwise, one end', 'groups', 'many'
    ]  # fmt: skip


@pytest.mark.parametrize('counting', ['honest', 'fgc-pr', 'ftwt'])
def test_every_counting(counting):
    layers = tuple(layer(*case) for case in CASES['many'])
    head = LayerMACs('h', 'head', 1, 5, 3)
    table = MACsTable((*layers, head), ('a', 'b'), (4, 6))
    opened = (torch.rand(5, 10) > 0.5).double()
    got = MACsMatrices(table, counting)(opened)
    parts = opened.split(table.channels, 1)
    assert torch.equal(got, macs_per_image(table, parts, counting))


@pytest.mark.parametrize('name', CASES)
def test_counting_on_a_device(name, one_device):
    layers = tuple(layer(*case) for case in CASES[name])
    matrices = MACsMatrices(MACsTable(layers, ('a', 'b'), (4, 6)))
    with one_device:
        matrices(torch.ones(5, 10, dtype=torch.float64, device='meta'))


@pytest.mark.parametrize('name', ['depthwise', 'depthwise, places'])
def test_a_depthwise_conv_counts_each_channel_once(name):
    """The gradient of an open channel is a unit, not two."""
    (case,) = CASES[name]
    table = MACsTable((layer(*case),), ('a', 'b'), (4, 6))
    opened = torch.ones(1, 10, dtype=torch.float64, requires_grad=True)
    MACsMatrices(table)(opened).backward()
    times = [1, 1, 1, 1, 1, 1 if name == 'depthwise' else 2]
    assert opened.grad.tolist() == [[0] * 4 + [7 * n for n in times]]
    soft = opened.detach() / 4
    (parts,) = [soft.split(table.channels, 1)]
    got = MACsMatrices(table)(soft)
    assert got.item() == 7 * open_pairs(table.layers[0], parts).item()


def test_matrices_of_several_tables_are_built_once():
    case = CASES['both'][0]
    tables = [
        MACsTable((layer(*case, unit=n),), ('a', 'b'), (4, 6))
        for n in range(MOST_TABLES + 1)
    ]
    kept = KeptMatrices()
    built = [kept.of(table) for table in tables]
    for table, matrices in zip(tables[1:], built[1:], strict=True):
        assert kept.of(table) is matrices and matrices.table is table
    assert kept.of(tables[0]) is not built[0]  # the oldest was dropped
    assert kept.of(tables[0]).table is tables[0]
