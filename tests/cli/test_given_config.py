"""Configs in pure Python, which name classes instead of strings."""

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands.plan_budget import loss_index
from fgc_mm.cli.given_config import check_gates
from fgc_mm.errors import FGCError
from fgc_mm.gates import BinaryConcreteGate, FBSGate
from fgc_mm.losses import BatchShapingLoss, MaskPredictionLoss


def test_gates_for_a_threshold():
    for gate in (BinaryConcreteGate, 'fgc_mm.BinaryConcreteGate'):
        cfg = Config(dict(model=dict(backbone=dict(gate=dict(type=gate)))))
        check_gates(cfg, '--gate-threshold 0.6')
    cfg.model.backbone.gate.type = FBSGate
    with pytest.raises(FGCError, match='does not fit FBSGate'):
        check_gates(cfg, '--gate-threshold 0.6')


def test_the_loss_whose_ratio_is_planned():
    losses = [dict(type=BatchShapingLoss), dict(type=MaskPredictionLoss)]
    assert loss_index(Config(dict(model=dict(gate_losses=losses)))) == 1
    losses[1]['type'] = 'fgc_mm.MaskPredictionLoss'
    assert loss_index(Config(dict(model=dict(gate_losses=losses)))) == 1
