"""FTWT's targets against loops over channels."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fgc_mm.errors import FGCError
from fgc_mm.functional import mass_mask, uniform_mask


def scores_of(maps):
    """Largest magnitude of every channel's map, as a list."""
    return [max(abs(v) for v in m.flatten().tolist()) for m in maps]


def naive_mass(maps, ratio):
    scores = scores_of(maps)
    total = sum(scores)
    if ratio < 0 or total == 0:
        return [1.0] * len(scores)
    shares = [s / total for s in scores]
    if ratio == 1:
        return [float(s > 1e-5) for s in shares]
    keep, mass = [0.0] * len(shares), 0.0
    for place, c in enumerate(sorted(range(len(shares)),
                                     key=lambda c: -shares[c])):  # fmt: skip
        mass += shares[c]
        if mass <= ratio + 1e-5 or place == 0:
            keep[c] = 1.0
    return keep


def naive_uniform(maps, ratio):
    scores = scores_of(maps)
    order = sorted(range(len(scores)), key=lambda c: scores[c])
    drop = set(order[: int(ratio * len(scores))])
    keep = [float(c not in drop and s > 1e-5) for c, s in enumerate(scores)]
    if max(scores) == 0:
        return [1.0] * len(scores)
    keep[order[-1]] = 1.0
    return keep


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(6, 11, 3, 4, generator=generator)
    maps[1, 3:] = 0  # dead channels
    maps[2, 1:] *= 1e-4  # one channel holds nearly all
    maps[3] = 0
    return maps


@pytest.mark.parametrize('ratio', [-1, 0.01, 0.3, 0.5, 0.77, 0.999, 1])
def test_mass_against_loops(maps, ratio):
    want = torch.tensor([naive_mass(image, ratio) for image in maps])
    assert torch.equal(mass_mask(maps, ratio), want)


@pytest.mark.parametrize('ratio', [0, 0.05, 0.1, 0.5, 0.95])
def test_uniform_against_loops(maps, ratio):
    want = torch.tensor([naive_uniform(image, ratio) for image in maps])
    assert torch.equal(uniform_mask(maps, ratio), want)


def test_the_channel_that_crosses_is_dropped_too():
    maps = torch.tensor([[5.0, 3, 2]])  # cumulative: 0.5, 0.8, 1
    assert mass_mask(maps, 0.79).tolist() == [[1, 0, 0]]
    assert mass_mask(maps, 0.8).tolist() == [[1, 1, 0]]
    # 1e-5 is for rounding
    assert mass_mask(maps, 0.799995).tolist() == [[1, 1, 0]]
    assert mass_mask(maps, 0.79998).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize('target', [mass_mask, uniform_mask])
def test_the_sign_and_the_position_do_not_matter(target, maps):
    assert torch.equal(target(maps, 0.5), target(-maps.flip(2), 0.5))


def test_more_mass_keeps_more(maps):
    kept = [mass_mask(maps, r).sum() for r in (0.1, 0.3, 0.6, 0.9, 1)]
    assert kept == sorted(kept) and kept[0] < kept[-1]


@pytest.mark.parametrize('target', [mass_mask, uniform_mask])
def test_targets_have_no_gradient(target):
    maps = torch.rand(2, 5, 2, 2, requires_grad=True)
    assert not target(maps, 0.5).requires_grad


@pytest.mark.parametrize(
    ('target', 'ratio'),
    [(mass_mask, 0), (mass_mask, 1.01), (mass_mask, math.nan),
     (uniform_mask, 1), (uniform_mask, -0.1), (uniform_mask, math.nan)],
)  # fmt: skip
def test_a_ratio_without_a_channel_is_refused(target, ratio):
    with pytest.raises(FGCError, match=r'leaves no channel.*; give a number'):
        target(torch.rand(1, 3), ratio)


class FloatSums(TorchDispatchMode):
    """Records cumulative sums of floats."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == 'cumsum' and args[0].is_floating_point():
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_no_cumulative_sum_that_deterministic_algorithms_refuse():
    with FloatSums() as sums:
        mass_mask(torch.rand(4, 16, 5, 5), 0.7)
        uniform_mask(torch.rand(4, 16, 5, 5), 0.7)
    assert not sums.found


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_deterministic_on_a_gpu():
    maps = torch.rand(4, 16, 5, 5)
    torch.use_deterministic_algorithms(True)
    try:
        got = mass_mask(maps.cuda(), 0.7)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(got.cpu(), mass_mask(maps, 0.7))


def test_uniform_keeps_the_largest_of_tiny_scores():
    maps = torch.tensor([[1e-6, 3e-6, 2e-6, 0.0]])[:, :, None, None]
    assert uniform_mask(maps, 0.5).tolist() == [[0, 1, 0, 0]]
