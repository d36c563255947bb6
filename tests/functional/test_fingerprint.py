"""A checksum that shows every change of a bank."""

import pytest
import torch

from fgc_mm.functional import _chunks, fingerprint

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def naive(rows):
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    numbers = rows.contiguous().view(bits[rows.element_size()]).flatten()
    total = 0
    for place, number in enumerate(numbers.tolist()):
        total += (place * 0x5851F42D4C957F2D | 1) * number
    total %= 2**64
    return total - 2**64 if total >= 2**63 else total


@pytest.mark.parametrize('dtype', DTYPES)
def test_against_loops(dtype):
    torch.manual_seed(0)
    rows = torch.randn(7, 5).to(dtype)
    assert int(fingerprint(rows)) == naive(rows)
    assert int(fingerprint(rows.T)) == naive(rows.T)  # not contiguous


@pytest.mark.parametrize('dtype', DTYPES)
def test_every_single_change_shows(dtype):
    torch.manual_seed(0)
    rows = torch.randn(3, 4).to(dtype)
    own = fingerprint(rows)
    assert torch.equal(fingerprint(rows.clone()), own)
    for place in range(12):
        for change in (torch.neg, torch.zeros_like):
            other = rows.clone()
            flat = other.view(-1)
            flat[place] = change(flat[place])
            assert not torch.equal(fingerprint(other), own)


def test_parts_count_their_places(monkeypatch):
    rows = torch.arange(12.0).view(3, 4)
    whole = fingerprint(rows)
    monkeypatch.setattr(_chunks, 'CPU', _chunks.CPU._replace(checksum=5))
    assert torch.equal(fingerprint(rows), whole)
    assert not torch.equal(fingerprint(rows.flip(0)), whole)
