"""Every gate with every loss: one design."""

import copy

import pytest
import torch

from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.registry import MODELS

GATES = {
    'bas': dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
    'ftwt': dict(type='fgc_mm.FTWTGate'),
    'fbs': dict(type='fgc_mm.FBSGate', density=0.5),
    'manidp': dict(type='fgc_mm.ManiDPGate', keep=0.5),
}
COUPLING = dict(
    type='fgc_mm.FeatureGateCouplingLoss', num_neighbors=3, warmup_epochs=0
)
GRAM = dict(type='fgc_mm.GramSimilarityLoss')
TARGET = dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.5)
MASKS = dict(type='fgc_mm.MaskPredictionLoss', ratio=0.7)
SPARSE = dict(
    type='fgc_mm.SaliencyL1Loss', reduction='site_means', loss_weight=5e-3
)
L0 = dict(type='fgc_mm.L0Loss')
SHAPING = dict(type='fgc_mm.BatchShapingLoss')

BACKBONES = {}  # the search for sites is most of a test's time


def build(tiny, gate, losses, residual=False):
    cfg = tiny.cfg(gate_losses=losses)
    cfg['backbone']['gate'] = GATES[gate]
    if residual:
        cfg['backbone']['sites'] = dict(type='auto', residual=True)
    torch.manual_seed(0)
    if (gate, residual) not in BACKBONES:
        BACKBONES[gate, residual] = MODELS.build(cfg['backbone'])
    cfg['backbone'] = copy.deepcopy(BACKBONES[gate, residual])
    return MODELS.build(cfg).train()


def step(model, tiny, epoch=9, only=None):
    """A step's losses; backward through their sum, or through one alone."""
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = Progress(epoch, 0)
        if isinstance(part, FeatureGateCouplingLoss) and not part.banks:
            part.build_banks(model.backbone.sites, 40)
    images = torch.rand(
        6, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    losses = model.loss(images, tiny.samples([0, 1, 2, 3, 4, 5]))
    (losses[only] if only else model.parse_losses(losses)[0]).backward()
    for loss in model.gate_losses:
        if isinstance(loss, FeatureGateCouplingLoss):
            loss.write_banks()
    return losses


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('gate', GATES)
def test_coupling_gram_and_a_budget_work_with_each_gate(gate, residual, tiny):
    losses = [COUPLING, GRAM, TARGET, *([MASKS] if gate == 'ftwt' else [])]
    model = build(tiny, gate, losses, residual)
    for epoch in (0, 1, 2):
        values = step(model, tiny, epoch)
        assert all(v.isfinite().all() for v in values.values())
    for name, parameter in model.backbone.gates.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def reached(model, tiny, loss):
    """Backward through one loss alone: which gates it leaves a gradient."""
    step(model, tiny, 0)
    model.zero_grad()
    step(model, tiny, 1, only=loss)
    return [
        any(p.grad is not None and p.grad.any() for p in gate.parameters())
        for gate in model.backbone.gates.values()
    ]


@pytest.mark.parametrize(
    'loss', [COUPLING, GRAM, TARGET, MASKS, SPARSE, L0, SHAPING]
)
@pytest.mark.parametrize('gate', GATES)
def test_each_loss_reaches_each_gate_by_itself(gate, loss, tiny):
    model = build(tiny, gate, [loss])
    (one,) = model.gate_losses
    found = reached(model, tiny, f'loss_{one.name}')
    if loss is COUPLING:  # of the last two sites; others through them
        found = found[-2:]
    assert all(found)


@pytest.mark.parametrize('gate', GATES)
def test_the_task_alone_reaches_all_gates_but_ftwts(gate, tiny):
    found = reached(build(tiny, gate, []), tiny, 'loss_cls')
    assert any(found) == all(found) == (gate != 'ftwt')


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('gate', GATES)
def test_positive_logits_open_channels_in_evaluation(gate, residual, tiny):
    model = build(tiny, gate, [], residual)
    for epoch in (0, 1):
        step(model, tiny, epoch)
    with torch.no_grad():
        _, records = model.eval().backbone.forward_gated(
            torch.rand(5, 3, 16, 16)
        )
    for record in records:
        assert torch.equal(record.mask != 0, record.logits > 0)


@pytest.mark.parametrize('gate', ['fbs', 'manidp'])
def test_saliencies_scale_the_consumers_input(gate, tiny):
    model = build(tiny, gate, []).eval()
    seen = []
    site = model.backbone.sites[0]
    consumer = model.backbone.backbone.get_submodule(site.consumers[0].path)
    consumer.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        _, records = model.backbone.forward_gated(
            torch.rand(2, 3, 16, 16), keep_activation=True
        )
    factor = records[0].mask[:, :, None, None]
    torch.testing.assert_close(seen[0], records[0].activation * factor)
    assert records[0].mask.unique().numel() > 2
