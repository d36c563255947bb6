"""Records of two sites, as a backbone would give them."""

from types import SimpleNamespace

import pytest
import torch
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

from fgc_mm.sites import GateRecord, GateSite

CHANNELS = {'early': 5, 'late': 3}


def make_sites(channels=None):
    """Sites without a network."""
    channels = channels or CHANNELS
    return [GateSite(n, (), (n,), 2, c) for n, c in channels.items()]


def make_records(count=4, seed=0, channels=None, keep=True):
    """Random records; logits and activations require gradients."""
    generator = torch.Generator().manual_seed(seed)
    records = []
    for site in make_sites(channels):
        shape = (count, site.channels)
        logits = torch.randn(shape, generator=generator).requires_grad_()
        maps = torch.rand(*shape, 3, 4, generator=generator).requires_grad_()
        probs = logits.sigmoid()
        mask = (logits > 0).float()
        maps = maps if keep else None
        records.append(GateRecord(site, maps, logits, probs, mask))
    return records


def make_samples(indices):
    """Samples with their index in the training set."""
    return [DataSample(metainfo=dict(sample_idx=i)) for i in indices]


@pytest.fixture(scope='session')
def given():
    """Sites, records and samples."""
    return SimpleNamespace(
        sites=make_sites, records=make_records, samples=make_samples
    )


class _Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor) and not func.is_view:
                self.elements = max(self.elements, one.numel())
        return out


@pytest.fixture
def largest_made():
    """Inside it, counts the elements of the largest tensor an op makes."""
    return _Largest()
