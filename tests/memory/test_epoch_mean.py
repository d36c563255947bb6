"""The mean over an epoch's images; ranks are in tests/runs."""

import copy
import io

import pytest
import torch
from torch import nn

from fgc_mm.memory import EpochMean


class Owner(nn.Module):
    """A module with a mean of vectors of three."""

    def __init__(self):
        super().__init__()
        self.mean = EpochMean(self, (3,), 'sum_of_all')


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, 3, generator=generator) for n in (5, 5, 2)]


def run_epoch(owner, epoch, batches):
    """Runs an epoch; returns the mean of the epoch before."""
    ended = [owner.mean.start_epoch(epoch)]
    for batch in batches:
        owner.mean.add(batch)
        ended.append(owner.mean.start_epoch(epoch))
    assert ended[1:] == [None] * len(batches)
    return ended[0]


def naive(batches):
    rows = [row for batch in batches for row in batch.tolist()]
    return torch.tensor(
        [sum(column) / len(rows) for column in zip(*rows)], dtype=torch.float64
    )


def test_an_epoch_has_the_mean_of_its_own_images(batches):
    owner = Owner()
    assert run_epoch(owner, 0, batches) is None  # no epoch before it
    torch.testing.assert_close(
        run_epoch(owner, 1, batches[:1]), naive(batches), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        run_epoch(owner, 2, []), naive(batches[:1]), atol=1e-6, rtol=0
    )
    assert run_epoch(owner, 3, []).tolist() == [0, 0, 0]  # no image, no nan


def test_images_may_have_a_number_each(batches):
    owner = nn.Module()
    mean = EpochMean(owner)
    mean.add(batches[0][:, 0])
    torch.testing.assert_close(
        mean.start_epoch(1),
        batches[0][:, 0].double().mean(),
        atol=1e-6,
        rtol=0,
    )
    assert set(owner.state_dict()) == {'total', 'images', 'epoch'}


@pytest.mark.parametrize('way', ['copy', 'pickle', 'state'])
def test_it_resumes_within_an_epoch(batches, way):
    owner = Owner()
    run_epoch(owner, 3, batches[:2])
    again = Owner()
    run_epoch(again, 7, batches[2:])  # is in another epoch
    if way == 'copy':
        again = copy.deepcopy(owner)
    elif way == 'pickle':
        stream = io.BytesIO()
        torch.save(owner, stream)
        stream.seek(0)
        again = torch.load(stream, weights_only=False)
    else:
        again.load_state_dict(owner.state_dict())
    assert run_epoch(again, 3, batches[2:]) is None
    torch.testing.assert_close(
        run_epoch(again, 4, []), naive(batches), atol=1e-6, rtol=0
    )
    # and neither writes into the other
    assert owner.images == 10 and again.images == 0
    assert run_epoch(owner, 3, []) is None


def test_the_first_epoch_of_another_run_begins_anew(batches):
    """Its weights may be those of a run that ended in epoch 0, too."""
    owner = Owner()
    run_epoch(owner, 0, batches)
    owner.mean.end_epoch()
    torch.testing.assert_close(
        run_epoch(owner, 0, batches[:1]), naive(batches), atol=1e-6, rtol=0
    )
    assert owner.images == 5 and owner.epoch == 0
    assert run_epoch(Owner(), 0, []) is None
