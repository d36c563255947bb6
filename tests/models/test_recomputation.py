"""Networks that run parts of themselves again in the backward pass."""

import copy
import functools
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.sites import call as calls

GATE = dict(type='fgc_mm.BinaryConcreteGate')
GATES = {
    'concrete': GATE,
    'scaling': dict(type='fgc_mm.FBSGate'),
    'hard': dict(type='fgc_mm.FTWTGate'),
}
TINY = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
# the network, and what makes it run again
NETWORKS = {
    'ResNet': (
        dict(type='ResNet', depth=18, base_channels=4), dict(with_cp=True),
    ),
    'DenseNet': (
        dict(type='DenseNet', arch=dict(
            growth_rate=8, depths=[2, 2], init_channels=16)),
        dict(memory_efficient=True),
    ),
    'TinyViT': (
        dict(type='TinyViT', arch=dict(
            channels=[16, 32], num_heads=[1, 1], window_sizes=[4, 4],
            depths=[1, 2]), img_size=(32, 32), out_indices=(1,),
            drop_path_rate=0.0),
        dict(use_checkpoint=True),
    ),
}  # fmt: skip


class Blocks(nn.Module):
    """Residual blocks; ``how`` selects how each is run."""

    def __init__(self, how=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.how = how or as_it_is

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = self.how(block, x)
        return (x,)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(8, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.two = nn.Conv2d(12, 12, 1)
        self.three = nn.Conv2d(12, 8, 1)
        # its numbers are drawn after those of the gates
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        hidden = self.two(self.norm(self.one(x)).relu()).relu()
        return x + self.drop(self.three(self.drop(hidden)))


class Chain(Blocks):
    """Without sums: sites begin in one checkpointed part and end behind."""

    def __init__(self, how=None):
        super().__init__(how)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)) for _ in range(3)
        )


def as_it_is(block, x):
    return block(x)


def reentrant(block, x):
    return checkpoint(block, x, use_reentrant=True)


def recorded(block, x):
    return checkpoint(block, x, use_reentrant=False)


def nested(block, x):
    def inner(x):
        return reentrant(block, x) * 2

    return checkpoint(inner, x, use_reentrant=True) / 2


def nested_recorded(block, x):
    def inner(x):
        return recorded(block, x) * 2

    return checkpoint(inner, x, use_reentrant=False) / 2


def pair(plain, other, gate=GATE):
    """Two gated networks of the same weights."""
    torch.manual_seed(0)
    sites = dict(type='auto', image_size=32)
    one = GatedBackbone(plain, gate, sites).train()
    two = GatedBackbone(other, gate, sites).train()
    two.load_state_dict(one.state_dict())
    return one, two


@functools.cache
def gated(kind, gate):
    torch.manual_seed(0)
    return GatedBackbone(kind(), GATES[gate]).train()


def blocks(how, kind=Blocks, gate='concrete'):
    """A gated network as it is, and one whose parts run by ``how``."""
    one = copy.deepcopy(gated(kind, gate))
    two = copy.deepcopy(one)
    two.backbone.how = how
    return one, two


def loss_of(model, images, parts='both'):
    outputs, records = model.forward_gated(images)
    task = sum(output.square().mean() for output in outputs)
    terms = [
        record.probs.square().mean()
        + record.mask.mean()
        + record.activation.square().mean() / 10
        for record in records
    ]
    return {'task': task, 'gates': sum(terms), 'both': task + sum(terms)}[
        parts
    ]


def gradients(model, images, parts='both'):
    model.zero_grad()
    torch.manual_seed(3)  # the noise of the gates
    loss_of(model, images, parts).backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


def assert_same(got, want):
    assert got.keys() == want.keys()
    # a bias before a norm has a gradient of rounding errors only
    noise = 1e-6 * max(grad.abs().max().item() for grad in want.values())
    for name, grad in want.items():
        atol = noise + 2e-5 * grad.abs().max().item()
        torch.testing.assert_close(
            got[name], grad, atol=atol, rtol=1e-4, msg=name
        )


def image(size=32):
    return torch.randn(
        4, 3, size, size, generator=torch.Generator().manual_seed(2)
    )


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', NETWORKS)
def test_gradients_are_those_without_checkpointing(name):
    cfg, again = NETWORKS[name]
    plain, other = pair(dict(cfg), dict(cfg, **again))
    for parts in ('task', 'gates', 'both'):
        want = gradients(plain, image(), parts)
        assert any(key.startswith('gates.') for key in want)
        assert_same(gradients(other, image(), parts), want)


HOWS = [reentrant, recorded, nested, nested_recorded]


@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('how', HOWS)
@pytest.mark.parametrize('kind', [Blocks, Chain])
def test_every_form_of_checkpointing(kind, how, gate):
    plain, other = blocks(how, kind, gate)
    assert plain.sites
    for _ in range(2):
        want = gradients(plain, image(8))
        assert_same(gradients(other, image(8)), want)


@pytest.mark.parametrize('how', HOWS)
def test_a_gate_decides_once_per_step(how):
    plain, other = blocks(how)
    for model in (plain, other):
        gradients(model, image(8))
    assert other.gates.state_dict().keys() == plain.gates.state_dict().keys()
    for key, value in plain.gates.state_dict().items():
        torch.testing.assert_close(other.gates.state_dict()[key], value)


@pytest.mark.parametrize('how', HOWS)
def test_several_forward_passes_before_one_backward_pass(how):
    plain, other = blocks(how)
    grads = []
    for model in (plain, other):
        torch.manual_seed(4)
        one = loss_of(model, image(8))
        two = 3 * loss_of(model, image(8).flip(0) + 1)
        dense = model.backbone(image(8) - 1)[0].square().mean()
        (one + two + dense).backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    assert_same(grads[1], grads[0])


@pytest.mark.parametrize('how', [reentrant, recorded])
def test_the_plain_network_stays_dense(how):
    plain, other = blocks(how)
    grads = []
    for model in (plain, other):
        model.forward_gated(image(8))
        torch.manual_seed(3)
        model.backbone(image(8))[0].square().mean().backward()
        grads.append({n: p.grad for n, p in model.backbone.named_parameters()})
    assert_same(grads[1], grads[0])


@pytest.mark.parametrize('how', [as_it_is, *HOWS])
def test_nothing_of_a_step_is_kept(how):
    _, other = blocks(how)
    loss = loss_of(other, image(8))
    kept = [weakref.ref(call) for call in calls._LIVE if _of(call, other)]
    assert len(kept) == 1 and kept[0]() is not None
    loss.backward()
    del loss
    gc.collect()
    assert kept[0]() is None


def _of(call, model):
    return any(s.hooks in model._site_hooks for s in call.states.values())


def test_a_copy_in_the_middle_of_a_step():
    _, other = blocks(reentrant)
    loss = loss_of(other, image(8))
    copied = copy.deepcopy(other)
    loss.backward()
    assert all(p.grad is None for p in copied.parameters())


def test_evaluation_is_not_affected():
    for how in HOWS:
        plain, other = blocks(how)
        plain.eval(), other.eval()
        assert torch.equal(plain(image(8))[0], other(image(8))[0])


def without_gradients(block, x):
    with torch.no_grad():
        return block(x)


def test_a_part_that_never_runs_again_is_refused():
    class Frozen(Blocks):
        def forward(self, x):
            (x,) = super().forward(x)
            return (x + self.stem(torch.ones_like(x[:, :3])),)

    model = GatedBackbone(Frozen(without_gradients), GATE).train()
    loss = loss_of(model, image(8))
    with pytest.raises(FGCError, match=r'^blocks\.0.* did not recompute it'):
        loss.backward()


@pytest.mark.filterwarnings('ignore')
def test_a_reversible_network():
    cfg = dict(
        type='RevVisionTransformer', arch=TINY, img_size=32, patch_size=8,
        drop_path_rate=0.0,
    )  # fmt: skip
    plain, other = pair(
        dict(cfg, no_custom_backward=True), dict(cfg), GATES['scaling']
    )
    for parts in ('task', 'gates', 'both'):
        want = gradients(plain, image(), parts)
        assert_same(gradients(other, image(), parts), want)
