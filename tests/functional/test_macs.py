"""Counting against loops over channels, and against smaller networks."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import (
    LayerMACs,
    MACsTable,
    expected_macs,
    macs_per_image,
)


def layer(inputs, outputs, groups=1, in_site=None, out_site=None, unit=7):
    return LayerMACs(
        'backbone.x', 'backbone', unit, inputs, outputs, groups,
        () if in_site is None else ((in_site, None),),
        () if out_site is None else ((out_site, None),),
    )  # fmt: skip


def table_of(*layers, channels=(4, 6)):
    names = tuple(f'site{i}' for i in range(len(channels)))
    return MACsTable(layers, names, channels)


def naive(layers, masks, image):
    """Walks every pair of channels of every group."""
    total = 0
    for one in layers:
        width = one.in_channels // one.groups
        height = one.out_channels // one.groups
        for out in range(one.out_channels):
            group = out // height
            for source in range(group * width, (group + 1) * width):
                closed = closes(one.in_sites, masks, image, source) or closes(
                    one.out_sites, masks, image, out
                )
                total += 0 if closed else one.unit
    return total


def closes(sites, masks, image, channel):
    return any(
        (positions is None and masks[site][image, channel] == 0)
        or (
            positions is not None
            and positions[channel] >= 0
            and masks[site][image, positions[channel]] == 0
        )
        for site, positions in sites
    )


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('in_site', [None, 0])
@pytest.mark.parametrize('out_site', [None, 1])
def test_pairs_of_channels_one_by_one(groups, in_site, out_site):
    masks = [torch.randint(0, 2, (5, c)).float() for c in (4, 6)]
    table = table_of(layer(4, 6, groups, in_site, out_site), layer(3, 4))
    counted = macs_per_image(table, masks)
    want = [naive(table.layers, masks, image) for image in range(5)]
    assert counted.tolist() == want and counted.dtype == torch.float64


def test_a_depthwise_conv_inside_a_site_is_scaled_once():
    masks = [torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 0]])]
    depthwise = layer(4, 4, groups=4, in_site=0, out_site=0)
    table = table_of(depthwise, channels=(4,))
    assert macs_per_image(table, masks).tolist() == [14, 21]
    assert naive(table.layers, masks, 0) == 14
    assert expected_macs(table, 0.5) == 14


def test_the_value_of_an_open_channel_does_not_matter():
    table = table_of(layer(4, 6, 1, 0, 1))
    masks = [torch.rand(3, 4) + 0.1, torch.rand(3, 6) - 2]
    assert macs_per_image(table, masks).tolist() == [7 * 24] * 3


def full_table():
    gate = LayerMACs('backbone.gates.a/b.squeeze', 'gate', 1, 4, 3)
    head = LayerMACs('head.fc', 'head', 1, 6, 10)
    convs = layer(3, 4, out_site=0), layer(4, 6, in_site=0)
    return MACsTable((*convs, gate, head), ('a.b',), (4,))


def test_all_open_is_dense_plus_gates():
    table, masks = full_table(), [torch.ones(2, 4)]
    assert table.dense == 7 * (12 + 24) + 60 and table.gates == 12
    assert macs_per_image(table, masks).tolist() == [324.0] * 2
    assert expected_macs(table, 1.0) == table.dense + table.gates


def test_all_closed_leaves_gates_and_head():
    table = full_table()
    closed = macs_per_image(table, [torch.zeros(1, 4)])
    assert closed.item() == 60 + 12 == expected_macs(table, 0.0)


def test_the_published_counting_leaves_the_head_out():
    table, masks = full_table(), [torch.tensor([[1.0, 1, 0, 0]])]
    assert table.base() == table.dense
    assert table.base('fgc-pr') == 252
    assert macs_per_image(table, masks, 'fgc-pr').item() == 126 + 12
    assert macs_per_image(table, masks).item() == 126 + 12 + 60
    assert expected_macs(table, 0.5, 'fgc-pr') == 126 + 12


def test_a_table_has_the_macs_of_its_sites():
    table = full_table()
    assert table.site_macs(0) == table.of('backbone') == 252


def test_expected_is_the_mean_over_independent_masks():
    generator = torch.Generator().manual_seed(0)
    table = table_of(layer(4, 6, 2, 0, 1), layer(4, 4, 4, 0, 0))
    masks = [
        (torch.rand(20000, c, generator=generator) < 0.3).float()
        for c in (4, 6)
    ]
    mean = macs_per_image(table, masks).mean().item()
    assert mean == pytest.approx(expected_macs(table, 0.3), rel=0.02)


@pytest.mark.parametrize('ratio', [-0.1, 1.1, float('nan')])
def test_a_keep_ratio_is_a_share(ratio):
    with pytest.raises(FGCError, match=r'keep_ratio=.* between 0 and 1\.$'):
        expected_macs(full_table(), ratio)


def test_the_counting_of_ftwt_masks_what_a_sum_feeds():
    """Two blocks in a row, each conv2 gated before its residual sum."""
    stem, convs = layer(3, 4, out_site=0), []
    for block in range(2):
        inner, end = 1 + 2 * block, 2 + 2 * block
        convs += [layer(4, 4, out_site=inner),
                  layer(4, 4, in_site=inner, out_site=end)]  # fmt: skip
    head = LayerMACs('head.fc', 'head', 1, 4, 10)
    gate = LayerMACs('backbone.gates.x', 'gate', 1, 4, 4)
    table = table_of(stem, gate, *convs, head, channels=(4,) * 5)
    masks = [
        torch.tensor([[1.0] * k + [0] * (4 - k)]) for k in (2, 3, 1, 4, 2)
    ]
    # what each conv reads is what the conv before it has left open
    want = 7 * (3 * 2 + 2 * 3 + 3 * 1 + 1 * 4 + 4 * 2)
    assert macs_per_image(table, masks, 'ftwt').item() == want
    honest = 7 * (3 * 2 + 4 * 3 + 3 * 1 + 4 * 4 + 4 * 2) + 16 + 40
    assert macs_per_image(table, masks).item() == honest
    assert table.base('ftwt') == 7 * (12 + 4 * 16)
    assert expected_macs(table, 1.0, 'ftwt') == table.base('ftwt')
    assert expected_macs(table, 0.5, 'ftwt') == 7 * (6 + 4 * 4)


def test_an_unknown_counting_is_refused_everywhere():
    # `fgc_pr` instead of `fgc-pr` must not count one thing over another
    table, masks = full_table(), [torch.ones(1, 4)]
    for count in (
        lambda: table.base('fgc_pr'),
        lambda: macs_per_image(table, masks, 'fgc_pr'),
        lambda: expected_macs(table, 0.5, 'fgc_pr'),
    ):
        with pytest.raises(
            FGCError, match=r"'fgc_pr'.*honest, fgc-pr, ftwt\.$"
        ):
            count()


def test_sites_that_meet_in_one_input():
    # 2 channels of another layer, 4 of site 0, 6 of site 1, the last twice
    first = (-1, -1, 0, 1, 2, 3, *[-1] * 7)
    second = (*[-1] * 6, 0, 1, 2, 3, 4, 5, 5)
    joined = LayerMACs('x', 'backbone', 3, 13, 5, 1, ((0, first), (1, second)))
    table = table_of(joined)
    masks = [(torch.rand(7, c) > 0.5).float() for c in (4, 6)]
    counted = macs_per_image(table, masks).tolist()
    assert counted == [naive(table.layers, masks, i) for i in range(7)]
    half = expected_macs(table, 0.5)
    assert half == pytest.approx(3 * 5 * (2 + 0.5 * 11))
