"""FBS's gate: selected channels against sorted lists, and gradients."""

import copy
import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import FBSGate, ManiDPGate

FALL = dict(start_value=1.0, end_value=0.25, begin=0, end=3)


@pytest.fixture
def maps():
    return torch.randn(7, 6, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def gate():
    torch.manual_seed(0)
    return FBSGate(6, 12, density=0.4)


def naive(gate, maps):
    """The channels' factors, image by image."""
    rows = []
    for image in maps:
        pooled = torch.stack([m.abs().mean() for m in image])
        linear = (gate.predict.weight @ pooled + gate.predict.bias).tolist()
        count = math.ceil(0.4 * len(linear))
        best = sorted(range(len(linear)), key=lambda c: -linear[c])[:count]
        rows.append([
            max(v, 0.0) if c in best else 0.0 for c, v in enumerate(linear)
        ])  # fmt: skip
    return torch.tensor(rows)


@pytest.mark.parametrize('training', [True, False])
def test_selected_channels_scale_and_the_others_are_closed(
    gate, maps, training
):
    decision = gate.train(training)(maps)
    torch.testing.assert_close(decision.mask.detach(), naive(gate, maps))
    assert torch.equal(decision.mask != 0, decision.logits > 0)
    assert ((decision.mask != 0).sum(dim=1) <= 5).all()


def test_of_equals_the_first_are_open(gate):
    """Black maps: every saliency is the bias."""
    decision = gate(torch.zeros(2, 6, 4, 5))
    assert torch.equal(decision.mask[0], torch.tensor([1.0] * 5 + [0.0] * 7))
    assert torch.equal(decision.mask != 0, decision.logits > 0)
    for bias in (-1, 0):
        gate.predict.bias.data.fill_(bias)
        decision = gate(torch.zeros(2, 6, 4, 5))
        assert not decision.mask.any() and (decision.logits <= 0).all()


def test_it_starts_at_one():
    gate = FBSGate(3, 4)
    assert gate.predict.bias.tolist() == [1.0] * 4


def test_the_gradient_is_that_of_the_factor_alone(gate, maps):
    decision = gate(maps)
    decision.mask.sum().backward()
    opened = (decision.mask != 0).float()
    torch.testing.assert_close(gate.predict.bias.grad, opened.sum(dim=0))


def test_the_density_falls_by_epochs_and_stays_for_evaluation(maps):
    gate = FBSGate(6, 12, density=FALL)
    counts = []
    for epoch in range(5):
        gate.train().progress = Progress(epoch, 0)
        won = gate(maps).saliency.argsort().shape[1]
        assert won == 12
        counts.append(int(gate.trained_density * 12 + 0.5))
    assert counts == [12, 9, 6, 3, 3]
    again = FBSGate(6, 12, density=FALL)
    again.load_state_dict(copy.deepcopy(gate.state_dict()))
    assert torch.equal(again.eval()(maps).mask, gate.eval()(maps).mask)
    assert ((again(maps).mask != 0).sum(dim=1) <= 3).all()


@pytest.mark.parametrize('density', [0, 1.5, dict(start_value=1, end_value=0)])
def test_a_density_that_leaves_no_channel_is_refused(density):
    with pytest.raises(FGCError, match=r'density=.* of FBSGate leaves no'):
        FBSGate(3, 4, density=density)


def graphs_of(gate, epochs=3):
    """Graphs that torch.compile makes of a gate in some epochs."""
    torch._dynamo.reset()
    made = []

    def backend(graph, _):
        made.append(graph)
        return graph

    compiled, x = torch.compile(gate, backend=backend), torch.randn(4, 8, 3, 3)
    for step in range(2 * epochs):
        gate.progress = Progress(step // 2, step)
        got = compiled(x)
        assert torch.equal(got.mask, gate(x).mask)
    return len(made)


@pytest.mark.parametrize('kind', [FBSGate, ManiDPGate])
def test_one_graph_serves_all_epochs(kind):
    moves = dict(start_value=1.0, end_value=0.5, begin=0, end=2)
    gate = kind(8, 12, **{'density' if kind is FBSGate else 'keep': moves})
    assert graphs_of(gate.train()) == 1


def test_the_density_is_that_of_the_last_training(maps):
    """Wherever its progress is set."""
    gate = FBSGate(6, 12, density=FALL).eval()
    gate.progress = Progress(3, 3)
    assert gate.trained_density == 1  # evaluation keeps its own
    assert ((gate.train()(maps).mask != 0).sum(dim=1) <= 3).all()
    gate.eval().progress = Progress(1, 1)
    assert gate.trained_density == 0.25


def test_a_compiled_gate_keeps_its_density_for_evaluation():
    """A compiler may drop an update of a buffer within its graph."""
    torch._dynamo.reset()
    gate, maps = FBSGate(6, 12, density=FALL).train(), torch.randn(4, 6, 3, 3)
    compiled = torch.compile(gate, backend='aot_eager')
    for epoch in range(4):
        gate.progress = Progress(epoch, epoch)
        compiled(maps)
    assert gate.trained_density.item() == 0.25
    assert ((gate.eval()(maps).mask != 0).sum(dim=1) <= 3).all()


def test_the_density_is_read_by_no_host(monkeypatch):
    moves = dict(start_value=1.0, end_value=0.5, begin=0, end=2)
    gate, x = FBSGate(8, 12, moves).train(), torch.randn(4, 8, 3, 3)
    gate.progress = Progress(2, 9)
    reads = []
    item = torch.Tensor.item
    monkeypatch.setattr(
        torch.Tensor, 'item', lambda x: reads.append(1) or item(x)
    )
    trained, tested = gate(x), gate.eval()(x)
    assert not reads
    assert (trained.mask != 0).sum(1).max() == 6
    assert torch.equal(trained.mask, tested.mask)
