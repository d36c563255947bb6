"""A training on a CPU whose cores are busy names what helps."""

import os
from types import SimpleNamespace

import pytest
import torch

from fgc_mm.cli.commands.train import warn_of_load
from fgc_mm.runtime.cpu import usable_cores


@pytest.mark.skipif(not hasattr(os, 'getloadavg'), reason='not on Windows')
@pytest.mark.parametrize(
    ('threads', 'load', 'warned'),
    [(4, 1.5, True), (4, 0.5, False), (1, 1.5, False)],
)
def test_busy_cores_are_named(monkeypatch, threads, load, warned):
    said = []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=said.append))
    average = load * usable_cores()
    monkeypatch.setattr(os, 'getloadavg', lambda: (average, 0.0, 0.0))
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    warn_of_load(runner)
    assert ['set OMP_NUM_THREADS=1' in text for text in said] == [
        True
    ] * warned
