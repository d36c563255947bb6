"""Gates of every kind that decide for groups of channels."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import GroupedGate, build_gate

KINDS = ['BinaryConcreteGate', 'FTWTGate', 'FBSGate', 'ManiDPGate', 'OpenGate']
CHANNELS = 20


@pytest.fixture
def maps():
    return torch.randn(9, 6, 4, 5, generator=torch.Generator().manual_seed(1))


def built(kind, channels=CHANNELS, **options):
    torch.manual_seed(0)
    gate = build_gate(dict(type=f'fgc_mm.{kind}', **options), 6, channels)
    for module in gate.modules():
        if isinstance(module, nn.Linear):  # decisions that vary
            nn.init.normal_(module.weight, std=3)
        if hasattr(module, 'progress'):
            module.progress = Progress(0, 0)
    return gate


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('group', [8, 4, CHANNELS, 99])
def test_one_decision_opens_its_neighbours(kind, training, group, maps):
    gate = built(kind, group=group).train(training)
    torch.manual_seed(3)
    got = gate(maps)
    torch.manual_seed(3)
    inner = gate.gate(maps)
    decisions = -(-CHANNELS // group)
    for name, value in inner._asdict().items():
        assert value.shape == (9, decisions), name
        if name != 'mask':
            assert torch.equal(getattr(got, name), value), name
    assert got.mask.shape == (9, CHANNELS)
    for channel in range(CHANNELS):
        own = inner.mask[:, channel // group]
        assert torch.equal(got.mask[:, channel], own)


@pytest.mark.parametrize('kind', KINDS)
def test_a_group_of_one_is_no_group(kind, maps):
    plain, single = built(kind), built(kind, group=1)
    assert type(plain) is type(single) is not GroupedGate
    assert plain.state_dict().keys() == single.state_dict().keys()
    for one, other in zip(plain.eval()(maps), single.eval()(maps)):
        assert torch.equal(one, other)


def test_the_gate_of_published_checkpoints_keeps_names_and_shapes():
    gate = built('BinaryConcreteGate', channels=64)
    shapes = {name: tuple(v.shape) for name, v in gate.state_dict().items()}
    assert shapes == {
        'squeeze.weight': (16, 6),
        'norm.weight': (16,),
        'norm.bias': (16,),
        'norm.running_mean': (16,),
        'norm.running_var': (16,),
        'norm.num_batches_tracked': (),
        'expand.weight': (64, 16),
        'expand.bias': (64,),
    }


def test_fbs_opens_a_share_of_the_groups(maps):
    mask = built('FBSGate', group=4, density=0.4)(maps).mask
    opened = (mask.unflatten(1, (5, 4)) != 0).all(dim=2)
    assert (opened.sum(dim=1) <= 2).all()  # ceil(0.4 * 5) of 5 groups
    assert opened.sum() > 9


def test_the_hidden_layer_follows_from_the_channels():
    # the published width, C below 80 channels
    assert built('ManiDPGate', group=8).gate.squeeze.out_features == CHANNELS
    narrow = built('ManiDPGate', group=8, hidden_channels=3)
    assert narrow.gate.squeeze.out_features == 3


def test_the_threshold_is_that_of_the_gate_inside(maps):
    gate = built('BinaryConcreteGate', group=8, init_bias=3.0).eval()
    nn.init.zeros_(gate.gate.expand.weight)  # a probability of 0.953
    assert gate(maps).mask.all()
    gate.threshold = 0.96
    assert gate.gate.threshold == gate.threshold == 0.96
    assert not gate(maps).mask.any()
    assert built('OpenGate', group=8).threshold is None


@pytest.mark.parametrize('kind', ['BinaryConcreteGate', 'FBSGate'])
def test_the_gradient_of_a_decision_sums_over_its_channels(kind, maps):
    gate = built(kind, group=8)
    weight = torch.randn(9, CHANNELS)
    grads = []
    for masked in (True, False):
        gate.zero_grad()
        torch.manual_seed(5)
        if masked:
            (gate(maps).mask * weight).sum().backward()
        else:
            own = [weight[:, s : s + 8].sum(1) for s in range(0, CHANNELS, 8)]
            (gate.gate(maps).mask * torch.stack(own, 1)).sum().backward()
        grads.append([p.grad.clone() for p in gate.parameters()])
    assert any(grad.any() for grad in grads[0])
    for one, other in zip(*grads):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('group', [0, 1.5, 'all'])
def test_a_bad_group_is_refused(group):
    with pytest.raises(FGCError, match='group='):
        built('FTWTGate', group=group)
