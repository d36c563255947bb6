"""A passing nan in validation does not end a healthy run."""

import math

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper

from fgc_mm.errors import FGCError
from fgc_mm.evaluation import DynamicMACs
from fgc_mm.functional.schedule import Progress
from fgc_mm.registry import MODELS

GATES = {
    'concrete': dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
    'fbs': dict(type='fgc_mm.FBSGate'),
    'manidp': dict(type='fgc_mm.ManiDPGate'),
    'ftwt': dict(type='fgc_mm.FTWTGate'),
}


def build(tiny, gate):
    torch.manual_seed(0)
    cfg = tiny.cfg()
    cfg['backbone']['gate'] = GATES[gate]
    return MODELS.build(cfg)


def unsettle(model):
    """Running statistics as far from the truth as the first steps may be."""
    for module in model.backbone.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1e-30)
            module.eps = 1e-38


def train_a_step(model, tiny):
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = Progress(0, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model.loss(torch.randn(4, 3, 32, 32), tiny.samples([0, 1, 2, 3]))
    loss = sum(v for k, v in losses.items() if 'loss' in k)
    assert loss.isfinite()
    OptimWrapper(optimizer).update_params(loss)


def validate(model, images):
    model.eval()
    with torch.no_grad():
        return model.predict(images)


@pytest.mark.parametrize('gate', GATES)
def test_validation_continues_with_a_warning(tiny, gate, monkeypatch):
    model = build(tiny, gate)
    train_a_step(model, tiny)
    healthy = validate(model, torch.randn(3, 3, 32, 32))
    unsettle(model)
    broken = validate(model, 1e3 * torch.randn(3, 3, 32, 32))
    assert all(math.isnan(sample.macs) for sample in broken)
    assert not any(math.isnan(sample.macs) for sample in healthy)
    warnings = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', warnings.append)
    evaluator = Evaluator([DynamicMACs()])
    evaluator.process(healthy + broken)
    numbers = evaluator.evaluate(6)
    # no part of a broken network counts as pruned
    dense = numbers.pop('macs/dense')
    assert dense > 0
    assert len(numbers) == 7 and all(map(math.isnan, numbers.values()))
    (text,) = warnings
    assert 'nan or inf for 3 of 6 images' in text
    # later statistics have settled
    evaluator.process(healthy)
    assert not any(map(math.isnan, evaluator.evaluate(3).values()))
    assert len(warnings) == 1


@pytest.mark.parametrize('gate', GATES)
def test_a_mere_test_of_it_is_refused(tiny, gate):
    model = build(tiny, gate)
    unsettle(model)
    with pytest.raises(FGCError, match='outputs nan or inf'):
        validate(model, 1e3 * torch.randn(3, 3, 32, 32))
