"""Steps on an accelerator, without one: on tensors without data.

The meta device allows operations on tensors of two devices, which CUDA
refuses, so they are refused here; copies for which the host would wait are
counted.
"""

import sys
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fgc_mm.engine.loss_progress_hook import set_progress
from fgc_mm.functional.schedule import Progress
from fgc_mm.gates import BinaryConcreteGate, FBSGate, PartialGate
from fgc_mm.models import GatedImageClassifier
from fgc_mm.models import gate_losses_mixin as mixin

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
SHAPE = 3, 16, 16
COPIES = '_to_copy', 'copy_'
GATE = dict(type='fgc_mm.BinaryConcreteGate')
COUPLED = dict(type='fgc_mm.FeatureGateCouplingLoss', num_neighbors=4)
TARGET = dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.2)
STEPS = {
    'concrete': (GATE, dict(type='fgc_mm.L0Loss', loss_weight=0.1)),
    'coupled': (GATE, dict(COUPLED, warmup_epochs=0)),
    'coupled by label': (
        GATE, dict(COUPLED, warmup_epochs=0, neighbor_source='label'),
    ),
    'target of MACs': (GATE, TARGET),
    'groups': (dict(GATE, group=3), TARGET),
    'FTWT': (
        dict(type='fgc_mm.FTWTGate', group=3),
        dict(type='fgc_mm.MaskPredictionLoss', ratio=0.9),
    ),
    'FBS': (
        dict(type='fgc_mm.FBSGate'),
        dict(type='fgc_mm.SaliencyL1Loss', loss_weight=0.1),
    ),
    'ManiDP': (
        dict(type='fgc_mm.ManiDPGate'),
        dict(type='fgc_mm.GramSimilarityLoss', loss_weight=0.1),
    ),
}  # fmt: skip


class Shuffled(nn.Module):
    """A site whose channels are shuffled before a grouped conv."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.shuffle = nn.ChannelShuffle(2)
        self.second = nn.Conv2d(8, 16, 3, groups=2)
        self.last = nn.Conv2d(16, 6, 1)

    def forward(self, x):
        return self.last(self.second(self.shuffle(self.first(x).relu())))


@pytest.fixture(scope='module')
def counter_class():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from operation_counter import OperationCounter
    finally:
        sys.path.remove(str(BENCHMARKS))

    class Counter(OperationCounter):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            given = [
                x.device.type for x in tree_leaves((args, kwargs))
                if isinstance(x, Tensor) and x.dim()
            ]  # fmt: skip
            assert name in COPIES or len({*given}) < 2, name
            return super().__torch_dispatch__(func, types, args, kwargs)

    return Counter


def classifier(gate, loss):
    torch.manual_seed(0)
    return GatedImageClassifier(
        backbone=dict(
            type='fgc_mm.GatedBackbone', backbone=Shuffled(), gate=gate
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=6),
        gate_losses=[loss],
    )


def on_meta(model, monkeypatch):
    """The model, and its banks, on the meta device."""
    monkeypatch.setattr(mixin, 'warn_unreached', lambda *_: None)
    coupled = [x for x in model.gate_losses if hasattr(x, 'build_banks')]
    model.macs_table(SHAPE)  # on meta nothing is counted
    model.to('meta')
    for loss in coupled:
        labels = torch.arange(32) % 2
        loss.build_banks(model.backbone.sites, 32, labels=labels)
        for banks in loss.banks.values():
            banks.feature.to('meta')
            banks.gate.to('meta')
    return coupled


def batch():
    samples = [DataSample(metainfo=dict(sample_idx=i)) for i in range(8)]
    for sample in samples:
        sample.set_gt_label(torch.zeros(1, dtype=torch.int64, device='meta'))
    return torch.empty(8, *SHAPE, device='meta'), samples


@pytest.mark.parametrize('name', STEPS)
def test_a_training_step(name, counter_class, monkeypatch):
    model = classifier(*STEPS[name]).train()
    coupled = on_meta(model, monkeypatch)
    inputs, samples = batch()
    for epoch in range(3):
        counter = counter_class('meta')
        with counter:
            set_progress(model, Progress(epoch, 10 * epoch))
            losses = model(inputs, samples, mode='loss')
            total = sum(v for k, v in losses.items() if 'loss' in k)
            with counter.part('backward'):
                total.backward()
            for loss in coupled:
                loss.write_banks()
        if epoch:  # the first copies what is kept
            assert counter.copies == 0
            assert counter.reads.total() == len(coupled)


def test_a_prediction(counter_class, monkeypatch):
    model = classifier(GATE, TARGET).eval()
    on_meta(model, monkeypatch)
    inputs, samples = batch()
    for step in range(2):
        counter = counter_class('meta')
        with counter, torch.no_grad():
            model(inputs, samples, mode='predict')
        if step:
            assert counter.copies == 0


@pytest.mark.parametrize('kind', [BinaryConcreteGate, FBSGate])
def test_a_gate_of_some_channels(kind, counter_class, monkeypatch):
    gate = PartialGate(kind(3, 4), 6, range(1, 5), [0]).to('meta')
    # it copies numbers to the device, which the meta device does not show
    monkeypatch.setattr(Tensor, 'new_tensor', None)
    counter = counter_class('meta')
    with counter:
        gate(torch.empty(8, *SHAPE, device='meta'))
    assert counter.copies == 0 == counter.reads.total()
