"""Options that a comma or quotes have made a list or text."""

import pytest
import torch

from fgc_mm.engine.gate_lr_hook import GateLRHook
from fgc_mm.errors import FGCError
from fgc_mm.functional import batch_shaping, neighbor_contrast
from fgc_mm.functional.schedule import Schedule
from fgc_mm.gates import BinaryConcreteGate, FBSGate, FTWTGate
from fgc_mm.losses import (
    FeatureGateCouplingLoss,
    MACsTargetLoss,
    MaskPredictionLoss,
)
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.memory import MemoryBank


def contrast(temperature):
    bank = torch.ones(3, 2)
    rows = torch.zeros(1, 1, dtype=torch.int64)
    neighbor_contrast(bank[:1], bank, rows, temperature)


BUILDS = {
    'a constant': lambda x: Schedule.build(x),
    'start_value': lambda x: Schedule.build(
        dict(start_value=x, end_value=1.0)
    ),
    'end_value': lambda x: Schedule.build(dict(start_value=0.0, end_value=x)),
    'begin': lambda x: Schedule(0.0, 1.0, begin=x, end=9),
    'end': lambda x: Schedule(0.0, 1.0, begin=0, end=x),
    'temperature of the contrast': contrast,
    'momentum': lambda x: MemoryBank(4, 2, momentum=x),
    'eps': lambda x: FeatureGateCouplingLoss(eps=x),
    'warmup_epochs': lambda x: FeatureGateCouplingLoss(warmup_epochs=x),
    'pruning_ratio': lambda x: MACsTargetLoss(x),
    'ratio of the mass': lambda x: MaskPredictionLoss(x),
    'ratio of the channels': lambda x: MaskPredictionLoss(x, 'uniform'),
    'temperature': lambda x: BinaryConcreteGate(3, 4, temperature=x),
    'threshold': lambda x: BinaryConcreteGate(3, 4, threshold=x),
    'threshold of FTWT': lambda x: FTWTGate(3, 4, threshold=x),
    'density': lambda x: FBSGate(3, 4, density=x),
    'temperature of distillation': lambda x: DistillationLoss(x),
    'alpha': lambda x: batch_shaping(torch.ones(2, 2), alpha=x),
    'rate of the gates': lambda x: GateLRHook(x),
}


@pytest.mark.parametrize('value', [[0, 4], '0.4'])
@pytest.mark.parametrize('name', BUILDS)
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(FGCError) as caught:
        BUILDS[name](value)
    assert str(value) in str(caught.value)
    assert '\n' not in str(caught.value)
