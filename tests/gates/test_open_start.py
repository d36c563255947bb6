"""Gates that start open, and samples that change during the training."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import BinaryConcreteGate, ManiDPGate

MOVING = dict(start_value=1.0, end_value=0.0, begin=2, end=6)


@pytest.fixture
def maps():
    return torch.randn(8, 6, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('training', [True, False])
def test_with_weights_of_zero_the_bias_alone_decides(maps, training):
    gate = BinaryConcreteGate(6, 9, weight_init='zero', init_bias=3.0)
    decision = gate.train(training)(maps)
    assert (decision.logits == 3).all()
    if not training:
        assert (decision.mask == 1).all()
        return
    (decision.mask * torch.randn(8, 9)).sum().backward()
    # from the first step on it is trained to distinguish images
    assert gate.expand.weight.grad.any()


def test_saliencies_that_start_at_one(maps):
    gate = ManiDPGate(6, 9, weight_init='zero')
    gate.progress = Progress(0, 0)
    assert (gate(maps).mask == 1).all()


@pytest.mark.parametrize('kind', [BinaryConcreteGate, ManiDPGate])
def test_an_unknown_start_is_refused(kind):
    words = rf"weight_init='ones' of {kind.__name__}"
    with pytest.raises(FGCError, match=words):
        kind(6, 9, weight_init='ones')


def test_the_temperature_follows_the_epoch():
    moving = dict(start_value=0.8, end_value=0.4, begin=0, end=4)
    gate = BinaryConcreteGate(6, 9, temperature=moving)
    for epoch, want in ((0, 0.8), (1, 0.7), (4, 0.4), (9, 0.4)):
        gate.progress = Progress(epoch, 0)
        assert gate.temperature == pytest.approx(want)
    with pytest.raises(FGCError, match='is not positive'):
        BinaryConcreteGate(6, 9, temperature=dict(moving, end_value=0.0))


@pytest.mark.parametrize('epoch', range(8))
def test_the_noise_is_scaled(maps, epoch):
    torch.manual_seed(0)
    gate = BinaryConcreteGate(6, 9, noise=MOVING)
    gate.progress = Progress(epoch, 0)
    torch.manual_seed(5)
    decision = gate(maps)
    scale = min(max((6 - epoch) / 4, 0), 1)
    logits = decision.logits.detach()
    torch.manual_seed(5)
    noise = torch.empty(8, 9).uniform_().logit() if scale else 0
    y = logits + scale * noise
    assert torch.equal(decision.mask, (y > 0).float())
    decision.mask.sum().backward()
    soft = (y / gate.temperature).sigmoid()
    slope = (soft * (1 - soft) / gate.temperature).sum(dim=0)
    torch.testing.assert_close(gate.expand.bias.grad, slope)


def test_the_published_sample_stays_bit_for_bit(maps):
    decisions = []
    for options in ({}, dict(noise=1.0, temperature=2 / 3)):
        torch.manual_seed(0)
        gate = BinaryConcreteGate(6, 9, **options)
        decisions.append(gate(maps))
    for one, other in zip(*decisions):
        assert torch.equal(one, other)


def test_evaluation_does_not_need_the_progress(maps):
    gate = BinaryConcreteGate(6, 9, noise=MOVING).eval()
    assert torch.equal(gate(maps).mask, (gate(maps).logits > 0).float())
    with pytest.raises(FGCError, match='LossProgressHook'):
        gate.train()(maps)


@pytest.mark.parametrize('name', ['temperature', 'noise'])
def test_a_schedule_does_not_compile_again_in_every_epoch(maps, name):
    moving = dict(start_value=1.0, end_value=0.25, begin=0, end=20)
    gate = BinaryConcreteGate(6, 9, **{name: moving})
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(gate, backend=count)
    for epoch in range(12):
        gate.progress = Progress(epoch, epoch)
        torch.manual_seed(epoch)
        mask = compiled(maps).mask
        torch.manual_seed(epoch)
        assert torch.equal(mask, gate(maps).mask)
        if epoch == 2:
            first = len(graphs)
    assert len(graphs) == first <= 4


@pytest.mark.parametrize('kind', [BinaryConcreteGate, ManiDPGate])
@pytest.mark.parametrize('hidden', [-1, 0, 0.5, '4'])
def test_a_width_that_is_none_is_refused(kind, hidden):
    with pytest.raises(FGCError, match=f'hidden_channels={hidden!r} of'):
        kind(6, 9, hidden_channels=hidden)


def test_a_bias_that_is_not_a_number_is_refused():
    with pytest.raises(FGCError, match="init_bias='abc' of"):
        BinaryConcreteGate(6, 9, init_bias='abc')
