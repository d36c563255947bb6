"""MACs from a file's JSON are those of DynamicMACs."""

import json

import numpy as np
import pytest
import torch

from fgc_mm.deploy.bundle.meta import _runs, macs_settings
from fgc_mm.functional.macs import LayerMACs, MACsTable, macs_per_image
from fgc_mm.runtime.macs import MACs


def layer(unit, inputs, outputs, groups=1, **options):
    return LayerMACs(
        'conv', options.pop('role', 'backbone'), unit, inputs, outputs,
        groups, **options,
    )  # fmt: skip


# sites of 4 and 6 channels
TABLE = MACsTable(
    (
        layer(9, 3, 4, out_sites=((0, None),)),
        layer(5, 4, 4, 4, in_sites=((0, None),), out_sites=((0, None),)),
        # a concatenation of both, one of them reversed
        layer(
            1, 10, 8,
            in_sites=(
                (0, (0, 1, 2, 3, *[-1] * 6)),
                (1, (*[-1] * 4, 5, 4, 3, 2, 1, 0)),
            ),
        ),
        # two sites decide of the same channel
        layer(
            2, 6, 6, 2,
            in_sites=((1, None), (0, (0, 1, 2, 3, -1, -1))),
            out_sites=((1, None),),
        ),
        layer(7, 6, 10, role='head'),
        layer(3, 2, 4, role='gate'),
    ),
    ('a', 'b'),
    (4, 6),
)  # fmt: skip


def count(table, masks):
    """As a file has it: through JSON."""
    settings = json.loads(json.dumps(macs_settings(table)))
    return MACs(settings)([mask.numpy() for mask in masks])


def test_layers_of_every_kind():
    generator = torch.Generator().manual_seed(0)
    masks = [
        torch.rand(5, channels, generator=generator).round()
        for channels in TABLE.channels
    ]
    masks[0][0], masks[1][0] = 0, 0
    masks[0][1], masks[1][1] = 1, 2.5  # a gate may scale what it opens
    wanted = macs_per_image(TABLE, masks).numpy()
    np.testing.assert_array_equal(count(TABLE, masks), wanted)
    assert MACs(macs_settings(TABLE)).dense == TABLE.base()


@pytest.mark.parametrize(
    'backbone, sites',
    [
        (None, 'auto'),
        (dict(type='MobileNetV2', widen_factor=0.25), 'auto'),
    ],
)
def test_networks(tiny, backbone, sites):
    channels = 16 if backbone is None else 1280
    model = tiny.build(backbone=backbone, sites=sites, channels=channels)
    model.eval()
    images = torch.randn(3, 3, 32, 32)
    samples, records = model.predict_gated(images)
    table = model.macs_table((3, 32, 32))
    found = count(table, [record.mask for record in records])
    assert found.tolist() == [float(sample.macs) for sample in samples]


def test_runs_of_channels():
    assert _runs([0, 1, 2, -1, -1, 5, 4]) == (
        (0, 3), (-1, 2), (5, 1), (4, 1),
    )  # fmt: skip
    assert _runs([-1, 0]) == ((-1, 1), (0, 1))
    assert _runs([]) == ()
