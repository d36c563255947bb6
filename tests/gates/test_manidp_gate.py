"""ManiDP's gate: thresholds against sorted means of whole epochs."""

import copy
import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import ManiDPGate


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(n, 6, 4, 5, generator=generator) for n in (7, 7, 3)]


@pytest.fixture
def gate():
    torch.manual_seed(0)
    gate = ManiDPGate(6, 12, keep=0.4)
    torch.nn.init.normal_(gate.expand.bias, 0.5, 0.5)
    return gate


def epoch_of(gate, epoch, batches):
    gate.train().progress = Progress(epoch, 0)
    return [gate(batch) for batch in batches]


def naive_saliency(gate, maps):
    hidden = (maps.mean((2, 3)) @ gate.squeeze.weight.T).clamp(min=0)
    return (hidden @ gate.expand.weight.T + gate.expand.bias).clamp(min=0)


def test_the_hidden_layer_has_the_published_width():
    widths = [ManiDPGate(6, c).squeeze.out_features for c in (16, 79, 80, 256)]
    assert widths == [16, 79, 40, 128]
    assert ManiDPGate(6, 1).squeeze.out_features == 1
    assert ManiDPGate(6, 16).expand.bias.tolist() == [1.0] * 16


@pytest.mark.parametrize(
    ('init', 'gain'), [('torch', 1 / 3), ('kaiming_normal', 2)]
)
def test_how_its_weights_start(init, gain):
    torch.manual_seed(0)
    gate = ManiDPGate(200, 300, weight_init=init)
    for layer, fan_in in ((gate.squeeze, 200), (gate.expand, 150)):
        want = math.sqrt(gain / fan_in)
        assert layer.weight.std().item() == pytest.approx(want, rel=0.02)
    with pytest.raises(FGCError, match=r"weight_init='he' .*kaiming_normal"):
        ManiDPGate(3, 4, weight_init='he')


@pytest.mark.parametrize('images', [7, 64, 97, 128])
def test_a_saliency_that_never_changes_stays_open(images):
    """It equals the threshold, whatever the rounding of the mean."""
    gate = ManiDPGate(3, 4, keep=0.5, weight_init='zero')
    torch.nn.init.constant_(gate.expand.bias, 0.1)
    for epoch in range(2):
        found = epoch_of(gate, epoch, [torch.randn(images, 3, 4, 4)])
    assert found[0].mask.all()


def test_all_kept_channels_are_open_for_every_image(batches):
    """Not only for images with at least their mean saliency."""
    torch.manual_seed(0)
    gate = ManiDPGate(6, 12, keep=1)
    for epoch in range(2):
        decisions = epoch_of(gate, epoch, batches)
    assert gate.threshold == 0
    for decision in decisions:
        assert torch.equal(decision.mask, decision.saliency)


def test_the_threshold_is_the_mean_saliency_of_the_last_kept(gate, batches):
    first = epoch_of(gate, 0, batches)
    for decision in first:  # no statistics yet: all that is not 0
        assert torch.equal(decision.mask, decision.saliency)
    saliency = torch.cat([naive_saliency(gate, b) for b in batches])
    means = sorted(saliency.mean(dim=0).tolist(), reverse=True)
    want = means[math.ceil(0.4 * 12) - 1]
    second = epoch_of(gate, 1, batches)
    assert gate.threshold.item() == pytest.approx(want, rel=1e-6)
    for decision, batch in zip(second, batches):
        saliency = naive_saliency(gate, batch)
        kept = saliency * (saliency >= want)
        torch.testing.assert_close(decision.mask, kept)
        assert torch.equal(decision.mask != 0, decision.logits > 0)


def test_an_epoch_counts_its_own_images_only(gate, batches):
    epoch_of(gate, 0, [10 * b for b in batches])
    epoch_of(gate, 1, batches)
    epoch_of(gate, 2, [])
    gate(batches[0])
    fresh = copy.deepcopy(gate)
    means = torch.cat([naive_saliency(gate, b) for b in batches]).mean(dim=0)
    want = means.sort(descending=True).values[4]
    torch.testing.assert_close(fresh.threshold, want)


def test_keep_is_annealed(batches):
    fall = dict(start_value=1, end_value=0.5, end=2, curve='cosine')
    gate = ManiDPGate(6, 12, keep=fall)
    counts = []
    for epoch in range(4):
        epoch_of(gate, epoch, batches)
        means = torch.cat([naive_saliency(gate, b) for b in batches]).mean(0)
        counts.append(int((means >= gate.threshold - 1e-6).sum()))
    assert counts == [12, 9, 6, 6]


@pytest.mark.parametrize('epochs', [2, 5, 40])
def test_the_last_epoch_has_the_target(epochs):
    """0.5 of 16 channels are 8, and 9 the moment before."""
    fall = dict(start_value=1, end_value=0.5, end=epochs - 1, curve='cosine')
    gate = ManiDPGate(6, 16, keep=fall)
    images = torch.rand(9, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    for epoch in range(epochs):
        epoch_of(gate, epoch, [images])
    means = naive_saliency(gate, images).mean(0)
    assert int((means >= gate.threshold - 1e-6).sum()) == 8


def test_evaluation_changes_nothing(gate, batches):
    epoch_of(gate, 0, batches)
    before = {k: v.clone() for k, v in gate.state_dict().items()}
    gate.eval().progress = Progress(5, 0)
    gate(batches[0])
    assert all(torch.equal(v, before[k]) for k, v in gate.state_dict().items())


def test_a_checkpoint_within_an_epoch_is_resumed(gate, batches):
    epoch_of(gate, 0, batches[:2])
    again = ManiDPGate(6, 12, keep=0.4)
    again.load_state_dict(gate.state_dict())
    for one in (gate, again):
        epoch_of(one, 0, batches[2:])
        epoch_of(one, 1, batches[:1])
    assert torch.equal(gate.threshold, again.threshold)


def test_a_gate_without_the_epoch_is_refused(gate, batches):
    with pytest.raises(FGCError, match=r"add .*'fgc_mm\.LossProgressHook'"):
        gate(batches[0])
    with pytest.raises(FGCError, match=r'keep=0 of ManiDPGate leaves no'):
        ManiDPGate(3, 4, keep=0)


def test_passes_without_gradients_are_no_training_steps(gate, batches):
    """PreciseBNHook runs images again after the epoch."""
    epoch_of(gate, 0, batches)
    before = copy.deepcopy(gate.state_dict())
    with torch.no_grad():
        for batch in batches:
            gate(batch)
    after = gate.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert gate.images == 17
