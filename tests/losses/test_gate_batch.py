"""All that gate losses read is in their one argument."""

import copy
from dataclasses import FrozenInstanceError

import pytest
import torch

from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, GateLoss
from fgc_mm.registry import MODELS

L0 = dict(type='fgc_mm.L0Loss')
MACS = dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.3)
EASY = dict(type='fgc_mm.SaliencyL1Loss', easiness=True)


class Seen(GateLoss):
    """Stores the batches that it receives."""

    def __init__(self, needs):
        super().__init__(1.0, 'seen')
        self.batches = []
        for name in needs:
            setattr(self, name, True)

    def compute(self, batch):
        self.batches.append(batch)
        return batch.records[0].probs.mean()


@pytest.fixture
def seen_by(tiny, monkeypatch):
    """The model, and the batch that a loss gets from it."""

    def step(*needs):
        monkeypatch.setitem(MODELS.module_dict, 'Seen', Seen)
        model = tiny.build(gate_losses=[dict(type='fgc_mm.Seen', needs=needs)])
        model.progress = Progress(3, 7)
        samples = tiny.samples([0, 1, 2, 3])
        model.loss(torch.rand(4, 3, 16, 16), samples)
        (batch,) = model.gate_losses[0].batches
        assert batch.data_samples is samples
        assert batch.progress == Progress(3, 7)
        return model, batch

    return step


def test_a_batch_has_what_its_losses_need(seen_by):
    _, batch = seen_by()
    assert batch.macs_table is None and batch.scores is None
    model, batch = seen_by('needs_macs', 'needs_scores')
    assert batch.macs_table is model.macs_table((3, 16, 16))
    assert batch.scores.shape == (4, 10) and not batch.scores.requires_grad
    assert not batch.independent_labels


def test_a_batch_cannot_be_changed(given):
    batch = GateBatch(given.records())
    with pytest.raises(FrozenInstanceError):
        batch.progress = Progress(0, 0)


def test_a_step_sets_nothing_on_the_losses(tiny):
    """Beside what a loss computes itself: its tables and running means."""
    model = tiny.build(gate_losses=[L0, MACS, EASY])
    model.progress = Progress(0, 0)
    own = {'_macs', 'training'}
    before = [copy.copy(vars(loss)) for loss in model.gate_losses]
    model.loss(torch.rand(4, 3, 16, 16), tiny.samples([0, 1, 2, 3]))
    for loss, old in zip(model.gate_losses, before, strict=True):
        assert vars(loss).keys() == old.keys()
        changed = {k for k, v in old.items() if vars(loss)[k] is not v}
        assert changed <= own
