"""The work limit of a search, and its single thread."""

import pytest
import torch
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models import CifarResNet
from fgc_mm.sites import find_sites
from fgc_mm.sites.probed_backbone import ProbedBackbone
from fgc_mm.sites.site_cache import clear_cache
from fgc_mm.sites.work_limit import TooMuchWork, WorkLimit, one_thread


class Watched(nn.Conv2d):
    """Records the number of threads."""

    seen = ()

    def extra_threads(self, x):
        self.seen = {*self.seen, torch.get_num_threads()}
        return x


class Network(nn.Module):
    """Two convs; records the threads between them."""

    def __init__(self, fails=False):
        super().__init__()
        self.a, self.b = Watched(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.fails = fails

    def forward(self, x):
        x = self.a.extra_threads(self.a(x))
        if self.fails:
            raise RuntimeError('on purpose')
        return self.b(x)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('three_threads')
@pytest.mark.parametrize('fails', [False, True])
def test_the_search_runs_on_one_thread_and_restores_them(fails):
    network = Network(fails)
    if fails:
        with pytest.raises(FGCError, match='on purpose'):
            find_sites(network)
    else:
        find_sites(network)
    assert network.a.seen == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures('three_threads')
def test_threads_are_restored_after_an_interrupt():
    with pytest.raises(KeyboardInterrupt), one_thread():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


def test_the_same_search_is_the_same_work(monkeypatch):
    counts = []

    class Counted(ProbedBackbone):
        def __exit__(self, *error):
            super().__exit__(*error)
            counts.append(self.work.done)

    monkeypatch.setattr('fgc_mm.sites.discovery.ProbedBackbone', Counted)
    for _ in range(2):
        clear_cache()
        find_sites(CifarResNet(20, base_channels=4))
    assert counts[0] == counts[1] > 1e6


def test_the_limit_is_not_an_exception_that_a_backbone_catches():
    work = WorkLimit(1e5)
    work.add(None)
    with pytest.raises(TooMuchWork):
        work.add(torch.zeros(100_000))
    assert not issubclass(TooMuchWork, Exception)


def test_no_clock_is_used(monkeypatch):
    monkeypatch.setattr('time.monotonic', lambda: pytest.fail('a clock'))
    monkeypatch.setattr(
        'signal.setitimer', lambda *_: pytest.fail('a timer'), raising=False
    )
    assert find_sites(Network())
