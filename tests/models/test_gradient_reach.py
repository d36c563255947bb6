"""Gates that no loss reaches: left out, or named after the first step."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgc_mm.errors import FGCError
from fgc_mm.models import (
    GatedBackbone,
    GatedImageClassifier,
    build_macs_table,
)
from fgc_mm.models.gradient_reach import unread_layers, warn_unreached

GATE = dict(type='fgc_mm.BinaryConcreteGate')
L0 = dict(type='fgc_mm.L0Loss', loss_weight=0.5)
POOL = dict(type='GlobalAveragePooling')


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Fused(nn.Module):
    """As HRNet ends: every output is a sum of all branches."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid = conv(3, 6), conv(6, 6)
        self.fine = nn.Sequential(conv(6, 5), nn.ReLU(), conv(5, 4))
        self.coarse = nn.Sequential(conv(6, 5), nn.ReLU(), conv(5, 8))

    def forward(self, x):
        x = self.mid(self.stem(x).relu()).relu()
        return self.fine(x), self.coarse(x)


class Aside(Fused):
    """One output, and a layer whose output nothing reads."""

    def forward(self, x):
        fine, coarse = super().forward(x)
        del fine
        return (coarse,)


class ReadsAll(nn.Module):
    """A neck that reads every output."""

    def forward(self, feats):
        means = [f.mean((2, 3)) for f in feats]
        return (torch.cat(means, 1)[:, -8:] + means[0].sum(),)


def classifier(backbone, neck=POOL, gate=GATE, losses=(L0,), **head):
    head = dict(type='LinearClsHead', num_classes=5, in_channels=8, **head)
    torch.manual_seed(0)
    return GatedImageClassifier(
        GatedBackbone(backbone, gate), losses, neck=neck, head=head
    )


def names(model):
    return [site.name for site in model.backbone.sites]


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def messages(log, text):
    logged = [record.getMessage() for record in log.records]
    return [message for message in logged if text in message]


@pytest.fixture
def batch():
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    return torch.randn(4, 3, 16, 16), samples


class Checkpointed(Fused):
    """Its branch that is not read is recomputed in the backward pass."""

    def forward(self, x):
        x = self.mid(self.stem(x).relu()).relu()
        fine = checkpoint(self.fine, x, use_reentrant=True)
        return fine, self.coarse(x)


class Compared(Fused):
    """The output has no gradient to one of its branches."""

    def forward(self, x):
        fine, coarse = super().forward(x)
        return (coarse + (fine.mean(1, keepdim=True) > 0),)


@pytest.mark.parametrize('network', [Fused, Aside, Checkpointed, Compared])
def test_a_site_that_the_head_never_reads_is_left_out(network, log):
    model = classifier(network())
    assert names(model) == ['stem', 'mid', 'coarse.0']
    assert list(model.backbone.gates) == ['stem', 'mid', 'coarse-0']
    logged = messages(log, 'No gate at')
    assert 'or since the gradient to it is cut' in logged[0]
    assert len(logged) == 1 and logged[0].startswith(
        'No gate at fine.0: it would not learn, since neither neck'
    )
    fine = model.backbone.backbone.fine
    # it reads another site, whose mask stays
    assert len(fine[0]._forward_pre_hooks) == 1
    assert not fine[2]._forward_pre_hooks


def test_gates_that_a_neck_depends_on_are_kept():
    assert 'fine.0' in names(classifier(Fused(), ReadsAll()))
    assert 'fine.0' in names(
        GatedImageClassifier(GatedBackbone(Fused(), GATE))
    )


def test_every_remaining_gate_has_a_gradient(batch):
    model = classifier(Fused()).train()
    losses = model.loss(*batch)
    losses['loss_cls'].backward()
    for name, parameter in model.backbone.gates.named_parameters():
        assert parameter.grad is not None, name


def test_macs_and_decisions_are_of_the_gates_that_are_left(batch):
    model = classifier(Fused()).eval()
    (sample, *_) = model.predict(*batch)
    assert sample.gate_masks.shape == (6 + 6 + 5,)
    table = build_macs_table(model, (3, 16, 16))
    assert {layer.name: layer.sites for layer in table.layers}[
        'backbone.backbone.fine.2'
    ] == set()


def test_a_network_of_which_nothing_is_read_is_refused():
    class Unread(Aside):
        def forward(self, x):
            super().forward(x)
            return (x.mean((2, 3), keepdim=True).repeat(1, 3, 1, 1)[:, :8],)

    with pytest.raises(FGCError, match='not depend on any site of Unread'):
        classifier(Unread())


def test_a_head_that_does_not_take_the_image_leaves_all_sites():
    model = classifier(Fused(), None)
    assert 'fine.0' in names(model)


def test_nothing_in_the_network_is_changed():
    network = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), conv(4, 2)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        layers = {'0': network[0]}
        assert unread_layers(network, nn.Identity(), layers, (3, 8, 8)) == []
    assert all(
        torch.equal(v, before[k]) for k, v in network.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training and not network[0]._forward_hooks
    assert all(p.grad is None for p in network.parameters())


def test_the_states_of_other_devices_are_not_read(monkeypatch):
    """torch warns of it on a machine with several."""
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    network = Aside()
    layers = {'fine': network.fine[2], 'coarse': network.coarse[2]}
    unread = unread_layers(network, nn.Identity(), layers, (3, 8, 8))
    assert unread == ['fine']


def test_a_frozen_layer_is_judged_as_any_other():
    network = Fused().requires_grad_(False)
    assert names(classifier(network)) == ['stem', 'mid', 'coarse.0']


# the first step


class Detached(Fused):
    """Detaches one branch in training mode only."""

    def forward(self, x):
        fine, coarse = super().forward(x)
        if self.training:
            coarse = coarse.detach() + self.mid.weight.sum()
        return fine, coarse


class Partly(Fused):
    """One site's layers are detached in training mode only."""

    def forward(self, x):
        x = self.mid(self.stem(x).relu()).relu()
        coarse = self.coarse(x)
        if self.training:
            coarse = coarse.detach() + x.sum()
        return self.fine(x), coarse


@pytest.mark.parametrize(
    ('network', 'sites'),
    [(Detached, 'stem, mid, coarse.0'), (Partly, 'mid, coarse.0')],
)
def test_a_gate_without_a_gradient_from_the_task_is_named_once(
    batch, log, network, sites
):
    model = classifier(network()).train()
    for _ in range(2):
        model.loss(*batch)
    (message,) = messages(log, 'no gradient from')
    assert f'The gates of {sites} get no' in message
    assert log.records[-1].levelno == logging.WARNING


@pytest.mark.parametrize(
    ('gate', 'loss'),
    [
        (GATE, L0),
        (
            dict(type='fgc_mm.FTWTGate'),
            dict(type='fgc_mm.MaskPredictionLoss', ratio=0.5),
        ),
        (dict(type='fgc_mm.FBSGate'), dict(type='fgc_mm.SaliencyL1Loss')),
        (dict(type='fgc_mm.OpenGate'), L0),
    ],
)
def test_healthy_methods_are_not_warned_of(batch, log, gate, loss):
    losses = () if 'Open' in gate['type'] else (loss,)
    classifier(Fused(), gate=gate, losses=losses).train().loss(*batch)
    assert not messages(log, 'no gradient')


def test_a_parameter_that_no_loss_reaches_is_named():
    gates = dict(a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    x = torch.rand(3, 2)
    task = gates['a'](x).sum() + (x @ gates['b'].weight).sum()
    losses = dict(loss_cls=task, accuracy=gates['b'].bias.sum())
    assert warn_unreached(gates, losses, []) == ['b']
    losses['loss_more'] = [losses.pop('accuracy')]
    assert warn_unreached(gates, losses, []) == []


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_gate_that_checkpointing_hides_is_not_judged(reentrant):
    gates = dict(a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    x = torch.rand(3, 2, requires_grad=True)
    inner = checkpoint(gates['a'], x, use_reentrant=reentrant)
    losses = dict(loss_cls=inner.sum(), loss_l0=gates['b'](x).sum())
    assert warn_unreached(gates, losses, ['loss_l0']) == ['b']


def test_validation_is_not_the_first_step(batch, log):
    model = classifier(Fused())
    with torch.no_grad():
        model.train().loss(*batch)
    model.eval().loss(*batch)
    assert not messages(log, 'no gradient')
    assert model._first_step
