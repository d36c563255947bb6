"""The gate against its definition, layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgc_mm.errors import FGCError
from fgc_mm.gates import BinaryConcreteGate
from fgc_mm.registry import MODELS


@pytest.fixture
def gate():
    torch.manual_seed(0)
    gate = BinaryConcreteGate(6, 9)
    nn.init.normal_(gate.norm.running_mean)
    nn.init.uniform_(gate.norm.running_var, 0.5, 2)
    nn.init.normal_(gate.norm.weight)
    nn.init.normal_(gate.norm.bias)
    return gate


@pytest.fixture
def maps():
    return torch.randn(7, 6, 4, 5, generator=torch.Generator().manual_seed(1))


def naive_logits(gate, maps, training):
    """BAS, section 3.1, from the gate's parameters only."""
    hidden = maps.mean((2, 3)) @ gate.squeeze.weight.T
    mean, var = gate.norm.running_mean, gate.norm.running_var
    if training:
        mean, var = hidden.mean(0), hidden.var(0, unbiased=False)
    hidden = (hidden - mean) / (var + gate.norm.eps).sqrt()
    hidden = F.relu(hidden * gate.norm.weight + gate.norm.bias)
    return hidden @ gate.expand.weight.T + gate.expand.bias


@pytest.mark.parametrize('training', [True, False])
def test_logits_are_those_of_the_definition(gate, maps, training):
    gate.train(training)
    want = naive_logits(gate, maps, training).detach()
    logits, probs, _ = gate(maps)
    torch.testing.assert_close(logits, want)
    torch.testing.assert_close(probs, 1 / (1 + (-want).exp()))


def test_the_published_size():
    gate = MODELS.build(
        dict(type='fgc_mm.BinaryConcreteGate', in_channels=5, out_channels=3)
    )
    shapes = {name: tuple(p.shape) for name, p in gate.named_parameters()}
    assert shapes == {
        'squeeze.weight': (16, 5),
        'norm.weight': (16,),
        'norm.bias': (16,),
        'expand.weight': (3, 16),
        'expand.bias': (3,),
    }
    assert gate.temperature == 2 / 3 and (gate.expand.bias == 0).all()


def test_evaluation_opens_where_the_logit_is_above_zero(gate, maps):
    gate.eval()
    logits, probs, mask = gate(maps)
    assert torch.equal(mask, (logits > 0).float())
    assert 0 < mask.mean() < 1 and not mask.requires_grad
    assert torch.equal(mask, (probs > 0.5).float())
    assert torch.equal(gate(maps).mask, mask)


def test_a_logit_of_exactly_zero_is_closed(gate, maps):
    gate.eval()
    nn.init.zeros_(gate.expand.weight)
    assert (gate(maps).logits == 0).all() and (gate(maps).mask == 0).all()


def test_training_samples_hard_masks_with_a_gradient(gate, maps):
    first, second = gate(maps), gate(maps)
    assert set(first.mask.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first.mask, second.mask)
    first.mask.sum().backward()
    grads = [p.grad.abs().sum() for p in gate.parameters()]
    assert all(0 < grad < torch.inf for grad in grads)


def test_a_training_mask_is_open_as_often_as_its_probability(gate):
    gate.eval()  # fixes the norm, so that probabilities stay
    maps = torch.randn(1, 6, 4, 5).expand(4000, 6, 4, 5)
    gate.training = True
    decision = gate(maps)
    torch.testing.assert_close(
        decision.mask.mean(0), decision.probs[0], atol=0.04, rtol=0
    )


def test_the_temperature_reaches_the_gradient(maps):
    slopes = []
    for temperature in (0.2, 2.0):
        torch.manual_seed(0)
        gate = BinaryConcreteGate(6, 9, temperature=temperature)
        torch.manual_seed(1)
        gate(maps).mask.sum().backward()
        slopes.append(gate.expand.bias.grad.clone())
    assert not torch.allclose(slopes[0], slopes[1])


def test_the_bias_opens_all_or_none(maps):
    for bias, share in ((50.0, 1.0), (-50.0, 0.0)):
        gate = BinaryConcreteGate(6, 9, init_bias=bias)
        assert gate(maps).mask.mean() == share
        assert gate.eval()(maps).mask.mean() == share


def test_a_training_batch_of_one_image_is_refused(gate, maps):
    with pytest.raises(FGCError, match=r'batch of 1 .* drop_last=True .*\.$'):
        gate(maps[:1])
    assert gate.eval()(maps[:1]).mask.shape == (1, 9)
    gate.train().norm.eval()  # a fixed norm needs no batch
    assert gate(maps[:1]).mask.shape == (1, 9)


def test_one_image_of_a_batch_decides_alone(gate, maps):
    gate.eval()
    whole, one = gate(maps), gate(maps[2:3])
    torch.testing.assert_close(whole.logits[2:3], one.logits)


@pytest.mark.parametrize('training', [True, False])
def test_under_autocast_the_decision_is_float32(gate, maps, training):
    gate.train(training)
    with torch.autocast('cpu', torch.bfloat16):
        decision = gate(maps.bfloat16())
    assert {x.dtype for x in decision} == {torch.float32}
    want = naive_logits(gate, maps, training).detach()
    torch.testing.assert_close(decision.logits, want, atol=0.1, rtol=0.1)
    if training:
        decision.mask.sum().backward()
        assert gate.squeeze.weight.grad.isfinite().all()


@pytest.mark.parametrize('temperature', [0, -1.0])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(FGCError, match=r'temperature=.* not positive.*\.$'):
        BinaryConcreteGate(6, 9, temperature=temperature)


def test_the_threshold_is_a_probability_in_evaluation_only(maps):
    torch.manual_seed(0)
    gate = BinaryConcreteGate(6, 9).eval()
    probs = gate(maps).probs
    for threshold in (0.3, 0.5, 0.6):
        gate.threshold = threshold
        assert torch.equal(gate(maps).mask, (probs > threshold).float())
    gate.train()
    masks = []
    for gate.threshold in (0.01, 0.99):
        torch.manual_seed(1)
        masks.append(gate(maps).mask)
    assert torch.equal(*masks)


@pytest.mark.parametrize('threshold', [0, 1, -0.5, float('nan')])
def test_a_threshold_lies_between_never_and_always(threshold):
    with pytest.raises(FGCError, match=r'threshold=.* between 0 and 1 '):
        BinaryConcreteGate(6, 9, threshold=threshold)
