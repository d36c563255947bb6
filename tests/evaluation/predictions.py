"""Predictions of a two-site network, whose MACs can be computed by hand."""

import torch

from fgc_mm.functional import LayerMACs, MACsTable, macs_per_image

# conv 3 -> 2 (site a), conv 2 -> 3 (site b), conv 3 -> 1, a gate, a head
LAYERS = (
    LayerMACs('backbone.x', 'backbone', 100, 3, 2, 1, (), ((0, None),)),
    LayerMACs(
        'backbone.y', 'backbone', 100, 2, 3, 1, ((0, None),), ((1, None),)
    ),
    LayerMACs('backbone.z', 'backbone', 100, 3, 1, 1, ((1, None),)),
    LayerMACs('backbone.gates.a.fc', 'gate', 1, 3, 5),
    LayerMACs('head.fc', 'head', 1, 1, 10),
)
TABLE = MACsTable(LAYERS, ('a', 'b'), (2, 3))
LARGE = MACsTable(
    tuple(
        LayerMACs(
            x.name, x.role, x.unit * (4 if x.role == 'backbone' else 1),
            x.in_channels, x.out_channels, 1, x.in_sites, x.out_sites,
        )
        for x in LAYERS
    ),
    ('a', 'b'),
    (2, 3),
)  # fmt: skip


def prediction(opened, table=TABLE):
    """One image whose open channels are 1 in a list of five numbers."""
    row = torch.tensor(opened).bool()
    masks = row[None, :2].float(), row[None, 2:].float()
    score = torch.rand(10)
    return dict(
        macs=macs_per_image(table, masks)[0],
        gate_masks=row,
        macs_table=table,
        pred_score=score,
        gated_score=score,
    )


def predictions(count):
    """Different images, the same in every process."""
    generator = torch.Generator().manual_seed(1)
    return [
        prediction((torch.rand(5, generator=generator) < 0.6).tolist())
        for _ in range(count)
    ]
