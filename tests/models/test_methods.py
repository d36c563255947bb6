"""Every gate with every loss that couples or counts: one design."""

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


def build(tiny, gate, losses, residual=False):
    cfg = tiny.cfg(gate_losses=losses)
    cfg['backbone']['gate'] = GATES[gate]
    if residual:
        cfg['backbone']['sites'] = dict(type='auto', residual=True)
    torch.manual_seed(0)
    return MODELS.build(cfg).train()


def step(model, tiny, epoch=9):
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = Progress(epoch, 0)
        if isinstance(part, FeatureGateCouplingLoss) and not part.banks:
            part.build_banks(model.backbone.sites, 40)
    images = torch.rand(
        6, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    losses = model.loss(images, tiny.samples([0, 1, 2, 3, 4, 5]))
    model.parse_losses(losses)[0].backward()
    for loss in model.gate_losses:
        if isinstance(loss, FeatureGateCouplingLoss):
            loss.write_banks(lambda written: written)
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


@pytest.mark.parametrize('loss', [COUPLING, GRAM, TARGET])
@pytest.mark.parametrize('gate', GATES)
def test_each_loss_reaches_each_gate_by_itself(gate, loss, tiny):
    model = build(tiny, gate, [loss])
    step(model, tiny, 0)
    # off the task: what is left comes from the loss alone
    model.zero_grad()
    losses = step(model, tiny, 1)
    assert losses['loss_cls'] > 0
    weight = [p for n, p in model.backbone.gates.named_parameters()
              if 'expand.weight' in n or 'predict.weight' in n]  # fmt: skip
    grads = [p.grad for p in weight if p.grad is not None]
    assert sum(g.abs().sum() for g in grads) > 0


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('gate', GATES)
def test_logits_say_what_evaluation_opens(gate, residual, tiny):
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
def test_saliencies_scale_what_the_consumer_reads(gate, tiny):
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
