"""The published way that benchmarks/coupling.py is compared with."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
IMAGES, ROWS, NEIGHBORS = 6, 90, 4


@pytest.fixture(scope='module')
def coupling():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import coupling
    finally:
        sys.path.remove(str(BENCHMARKS))
    return coupling


@pytest.fixture(scope='module')
def sizes(coupling):
    return coupling.Sizes(IMAGES, ROWS, 5, NEIGHBORS, 1)


class _DenseCalls(TorchDispatchMode):
    """Names of the operators that compute an N x D matrix."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        dense = getattr(out, 'shape', None) == (IMAGES, ROWS)
        if dense and not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return out


def test_only_the_contrast_takes_a_softmax(coupling, sizes):
    block = coupling.make_block(sizes, 0)
    with _DenseCalls() as calls:
        coupling.published_loss(block, sizes)
    assert calls.names.count('mm') == 2  # the search, and the contrast
    assert calls.names.count('_softmax') == 1  # of the contrast alone


def test_it_finds_the_neighbors_that_ours_finds(coupling, sizes):
    block = coupling.make_block(sizes, 0)
    theirs = coupling.published_loss(block, sizes)
    similarity = (block.feature @ block.features.rows.T).tolist()
    scores = block.logits @ block.gates.rows.T / coupling.TEMPERATURE
    share = scores.softmax(1)
    total = 0.0
    for image, own in enumerate(block.index.tolist()):
        others = [j for j in range(ROWS) if j != own]
        others.sort(key=lambda j: -similarity[image][j])
        positives = [own, *others[:NEIGHBORS]]
        total -= (share[image, positives].sum() + coupling.EPS).log().item()
        (found,) = coupling.nearest_neighbors(
            block.feature[[image]], block.features.rows, NEIGHBORS,
            torch.tensor([own]),
        )  # fmt: skip
        assert set(found.tolist()) == set(others[:NEIGHBORS])
    assert theirs.item() == pytest.approx(total / IMAGES, rel=1e-5)
    torch.testing.assert_close(coupling.our_loss(block, sizes), theirs)


def test_steps_are_timed_in_turn(coupling):
    order = []
    steps = {n: (lambda n=n: order.append(n)) for n in ('a', 'b')}
    seconds = coupling.interleave(steps, 3)
    assert order == ['a', 'b'] * 4  # one warm-up each
    assert [len(s.wall) for s in seconds.values()] == [3, 3]
    assert [len(s.cpu) for s in seconds.values()] == [3, 3]
    fast, slow = coupling.Seconds([1.0, 2.0, 9.0]), coupling.Seconds([2.0] * 3)
    assert fast.ratio(slow) == 1.0
