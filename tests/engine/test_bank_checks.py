"""Banks of several sites are compared in one collective."""

from types import SimpleNamespace

import pytest
import torch

from fgc_mm.engine import bank_checks
from fgc_mm.errors import FGCError
from fgc_mm.memory import SiteBanks


@pytest.mark.parametrize('differs', [None, 3])
def test_all_banks_in_one_collective(monkeypatch, differs):
    asked = []

    def find_difference(values):
        asked.append(values)
        if differs is None:
            return None
        return SimpleNamespace(position=differs, rank=1)

    def bank():
        return SimpleNamespace(rows=torch.randn(4, 3))

    monkeypatch.setattr(bank_checks, 'get_world_size', lambda: 2)
    monkeypatch.setattr(bank_checks, 'find_difference', find_difference)
    banks = {site: SiteBanks(bank(), bank()) for site in 'ab'}
    loss = SimpleNamespace(banks=banks)
    if differs is None:
        bank_checks.check_same_banks(loss)
    else:
        with pytest.raises(FGCError, match='the gate bank of b on rank 1'):
            bank_checks.check_same_banks(loss)
    (values,) = asked
    assert len(values) == 4  # a feature bank and a gate bank of each site
