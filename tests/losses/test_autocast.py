"""Gate losses are computed in float32, also under autocast."""

from dataclasses import replace

import pytest
import torch

import fgc_mm.losses
from fgc_mm.losses import GateBatch
from fgc_mm.registry import MODELS

LOSSES = {
    'L0Loss': dict(),
    'BatchShapingLoss': dict(),
    'MaskPredictionLoss': dict(ratio=0.7),
    'uniform': dict(type='MaskPredictionLoss', ratio=0.7, target='uniform'),
    'SaliencyL1Loss': dict(loss_weight=1.0),
    'GramSimilarityLoss': dict(loss_weight=1.0),
}


def loss_of(name, records):
    """The weighted loss of a batch."""
    assert fgc_mm.losses
    cfg = dict(dict(type=name), **LOSSES[name])
    loss = MODELS.build(dict(cfg, type=f'fgc_mm.{cfg["type"]}'))
    return loss(GateBatch(records))


def gradients(loss, records):
    return torch.autograd.grad(loss, [record.logits for record in records])


@pytest.mark.parametrize('name', LOSSES)
def test_autocast_changes_nothing(name, given):
    def made():
        # maps of such a size and offset that half a type loses their order
        return [
            replace(
                record,
                activation=(100 + record.activation.detach()).bfloat16(),
                saliency=record.logits.relu(),
            )
            for record in given.records(count=8)
        ]

    whole = [replace(r, activation=r.activation.float()) for r in made()]
    half = made()
    wanted = loss_of(name, whole)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss_of(name, half)
    found = [found, *gradients(found, half)]
    wanted = [wanted, *gradients(wanted, whole)]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
