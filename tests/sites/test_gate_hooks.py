"""Gate hooks on a tiny network."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgc_mm.errors import FGCError
from fgc_mm.gates import GateDecision
from fgc_mm.sites import (
    GateHooks,
    GateRecord,
    GateSite,
    SiteLayer,
    keep_ratio,
)
from fgc_mm.sites.call import GatedCall, state_of
from fgc_mm.sites.layer_channels import ChannelIndex, mask_input, site_channels


class Names(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class HalfGate(nn.Module):
    """Opens every second channel, and records its input."""

    def forward(self, x):
        self.seen = x
        mask = (torch.arange(4) % 2).float().expand(len(x), 4)
        return GateDecision(mask - 0.5, mask / 2 + 0.2, mask)


SITE = GateSite(
    'first',
    (SiteLayer('second'), SiteLayer('third')),
    (SiteLayer('first'),),
    3,
    4,
)


class Net(nn.Module):
    """One producer, two consumers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 2, 1)
        self.third = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        inner = self.norm(self.first(x)).relu()
        return self.second(inner) + self.third(inner)


@pytest.fixture
def rig():
    torch.manual_seed(0)
    net, gate = Net().eval(), HalfGate()
    hooks = GateHooks(SITE, gate)
    GateHooks.attach([hooks], net.get_submodule)
    return SimpleNamespace(
        net=net, gate=gate, hooks=hooks, x=torch.randn(2, 3, 5, 5)
    )


def by_hand(net, x):
    inner = net.norm(net.first(x)).relu() * torch.tensor([0.0, 1, 0, 1]).view(
        1, 4, 1, 1
    )
    return net.second(inner) + net.third(inner)


def run_gated(hooks, net, x, keep_activation=False):
    call = GatedCall([hooks], keep_activation)
    out = call.run(net, x)
    return out, hooks.record(call.states[hooks.site.name])


def gated(rig, keep_activation=False):
    return run_gated(rig.hooks, rig.net, rig.x, keep_activation)


def test_every_consumer_reads_the_masked_map(rig):
    out, _ = gated(rig)
    want = by_hand(copy.deepcopy(rig.net), rig.x)
    assert torch.equal(out, want)


@pytest.mark.parametrize('keep', [True, False])
@torch.no_grad()
def test_a_factor_is_applied_once_in_every_consumer(rig, keep):
    half = torch.full((2, 4), 0.5)
    rig.hooks.gate = lambda x: GateDecision(half, half, half)
    out, _ = gated(rig, keep)
    inner = rig.net.norm(rig.net.first(rig.x)).relu() / 2
    assert torch.equal(out, rig.net.second(inner) + rig.net.third(inner))


class Residual(nn.Module):
    """A layer before a sum that another layer reads as well."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        inner = self.a(x)
        return self.head(inner + self.b(inner))


def test_a_factor_is_applied_once_at_a_residual_site():
    torch.manual_seed(0)
    net, x = Residual(), torch.randn(2, 3, 5, 5)
    mask = torch.full((2, 4), 0.5, requires_grad=True)
    want = net.a(x) * mask[:, :, None, None]
    want = net.head(want + net.b(want))
    (slope,) = torch.autograd.grad(want.sum(), mask)
    site = GateSite('a', (SiteLayer('b'),), (SiteLayer('a'),), 3, 4, 'a')
    hooks = GateHooks(site, lambda x: GateDecision(mask, mask, mask))
    GateHooks.attach([hooks], net.get_submodule)
    out, _ = run_gated(hooks, net, x, keep_activation=True)
    assert torch.equal(out, want)
    (own,) = torch.autograd.grad(out.sum(), mask)
    torch.testing.assert_close(own, slope)


def test_outside_of_a_call_hooks_do_nothing(rig):
    dense = rig.net(rig.x)
    assert not hasattr(rig.gate, 'seen') and state_of(rig.hooks) is None
    out, _ = gated(rig)
    assert not torch.equal(out, dense)
    assert torch.equal(rig.net(rig.x), dense)


def test_the_gate_reads_the_producers_input(rig):
    gated(rig)
    assert rig.gate.seen is rig.x


def test_a_record_has_the_outputs_of_the_gate(rig):
    _, record = gated(rig, keep_activation=True)
    inner = rig.net.norm(rig.net.first(rig.x)).relu()
    assert record.site is SITE
    assert torch.equal(record.activation, inner)
    assert record.mask.tolist() == [[0, 1, 0, 1]] * 2
    assert torch.equal(record.probs, record.mask / 2 + 0.2)
    assert torch.equal(record.logits, record.mask - 0.5)


def test_an_activation_is_recorded_only_on_request(rig):
    assert gated(rig)[1].activation is None
    assert gated(rig, keep_activation=True)[1].activation is not None
    assert gated(rig)[1].activation is None


def test_hooks_have_no_state_of_their_own(rig):
    before = dict(vars(rig.hooks))
    gated(rig, keep_activation=True)
    assert vars(rig.hooks) == before and state_of(rig.hooks) is None
    idle = GatedCall([rig.hooks], False).states[SITE.name]
    assert rig.hooks.record(idle) is None


def test_a_producer_that_runs_twice_is_refused(rig):
    def twice(x):
        rig.net(x)
        rig.net(x)

    with pytest.raises(FGCError, match=r'^first ran twice .* sites\.$'):
        run_gated(rig.hooks, twice, rig.x)


def test_a_consumer_that_runs_before_its_producer_is_refused(rig):
    x = torch.randn(2, 4, 5, 5)
    with pytest.raises(FGCError, match=r'^first had not run .* sites\.$'):
        run_gated(rig.hooks, rig.net.second, x)


def test_keep_ratio_weighs_channels_not_sites():
    def record(mask):
        return GateRecord(SITE, None, mask, mask, mask)

    wide, narrow = torch.zeros(2, 6), torch.full((2, 2), -3.0)
    ratio = keep_ratio([record(wide), record(narrow)])
    assert ratio.item() == 0.25 and ratio.shape == ()
    narrow.requires_grad_()
    assert not keep_ratio([record(narrow)]).requires_grad


def test_channel_indices_are_computed_once():
    x, mask = torch.randn(2, 7, 3), torch.rand(2, 3)
    # channel 0 once, 1 nowhere, 2 twice: its first position is used
    index = ChannelIndex((-1, 2, 0, -1, 2, -1, -1))
    with Names() as names:
        present, maps = site_channels(nn.Conv1d(7, 1, 1), x, index, 3)
        masked = mask_input(nn.Conv1d(7, 1, 1), x, mask, index)
    assert not names.found & {'nonzero', '_unique2', 'sort', '_to_copy'}
    assert present.tolist() == [0, 2]
    assert torch.equal(maps, x[:, [2, 1]])
    for channel, source in enumerate([-1, 2, 0, -1, 2, -1, -1]):
        factor = mask[:, source, None] if source >= 0 else 1
        assert torch.equal(masked[:, channel], x[:, channel] * factor)


def test_channel_indices_follow_the_input_to_its_device():
    index = ChannelIndex((0, 1, 0, 1))
    x = torch.empty(2, 4, 3, device='meta')
    present, maps = site_channels(nn.Conv1d(4, 1, 1), x, index, 2)
    assert present.is_meta and maps.shape == (2, 2, 2, 3)
    present, maps = site_channels(
        nn.Conv1d(4, 1, 1), torch.randn(2, 4, 3), ChannelIndex((0, 1, 0, 1)), 2
    )
    assert present.tolist() == [0, 1] and maps.shape == (2, 2, 2, 3)
