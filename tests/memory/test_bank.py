import copy
import io
import math

import pytest
import torch

from fgc_mm.memory import MemoryBank


def make(length=20, dim=4, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return MemoryBank(length, dim, generator=generator, **options)


def naive(rows, indices, values, momentum, unit):
    """One row after the other; of equal indices the first is written."""
    rows, seen = [list(row) for row in rows], set()
    for index, value in zip(indices, values, strict=True):
        if index in seen:
            continue
        seen.add(index)
        row = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(rows[index], value, strict=True)
        ]
        norm = math.sqrt(sum(x * x for x in row)) if unit else 1.0
        rows[index] = [x / norm for x in row]
    return torch.tensor(rows)


@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9])
@pytest.mark.parametrize('unit', [True, False])
@pytest.mark.parametrize('indices', [[3], [0, 19, 7], [5, 2, 5, 5, 2, 11]])
def test_update_against_loops(momentum, unit, indices):
    bank = make(momentum=momentum, normalize=unit)
    values = torch.randn(len(indices), 4)
    want = naive(bank.rows.tolist(), indices, values.tolist(), momentum, unit)
    bank.update(torch.tensor(indices), values)
    torch.testing.assert_close(bank.rows, want)


def test_momentum_weighs_the_old_row():
    bank = make(1, 2, momentum=0.9, normalize=False)
    bank.rows.copy_(torch.tensor([[1.0, 0.0]]))
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(bank.rows, torch.tensor([[0.9, 0.1]]))


def test_only_named_rows_move():
    bank = make()
    before = bank.rows.clone()
    bank.update(torch.tensor([4, 6]), torch.ones(2, 4))
    moved = (bank.rows != before).any(1)
    assert moved.nonzero().flatten().tolist() == [4, 6]


def test_the_first_of_many_duplicates_is_written():
    bank = make(3, 1, momentum=0.0, normalize=False)
    indices = torch.tensor([2, 0] * 500)
    bank.update(indices, torch.arange(1000.0).unsqueeze(1))
    assert bank.rows[2] == 0 and bank.rows[0] == 1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_lower_precision_values(dtype):
    bank, same = make(), make()
    values = torch.randn(2, 4).to(dtype)
    bank.update(torch.tensor([1, 2], dtype=torch.int32), values)
    same.update(torch.tensor([1, 2]), values.float())
    assert bank.rows.dtype == torch.float32
    assert torch.equal(bank.rows, same.rows)


def test_half_bank_averages_in_float32():
    bank = make(100, 4, 1, momentum=0.9, dtype=torch.bfloat16)
    old, new = bank.rows.float(), torch.randn(100, 4)
    bank.update(torch.arange(100), new)
    row = torch.lerp(new, old, 0.9)
    want = torch.nn.functional.normalize(row, dim=1).bfloat16()
    assert bank.rows.dtype == torch.bfloat16
    assert torch.equal(bank.rows, want)


def test_values_with_gradient_are_cut_off():
    bank = make()
    bank.update(torch.tensor([0]), torch.ones(1, 4, requires_grad=True))
    assert not bank.rows.requires_grad and bank.rows.is_leaf


def test_empty_update_writes_nothing():
    bank = make()
    before = bank.rows.clone()
    bank.update(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert torch.equal(bank.rows, before)


def test_inits():
    rows = make(2000, 12).rows
    bound = 1 / math.sqrt(12 / 3)
    assert rows.abs().max() <= bound and rows.abs().max() > 0.99 * bound
    assert abs(rows.mean()) < 0.01
    unit = make(2000, 12, init='unit').rows
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2000))
    assert abs(unit.mean()) < 0.01


def test_generator_decides_the_first_rows():
    assert torch.equal(make(seed=1).rows, make(seed=1).rows)
    assert not torch.equal(make(seed=1).rows, make(seed=2).rows)
    torch.manual_seed(5)
    first = MemoryBank(3, 2).rows
    torch.manual_seed(5)
    assert torch.equal(first, MemoryBank(3, 2).rows)


def test_is_not_part_of_the_network():
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bank = make()

    assert not isinstance(make(), torch.nn.Module)
    head = copy.deepcopy(Head())
    assert not head.state_dict() and not list(head.buffers())
    assert head.bank.rows.shape == (20, 4)


def test_defaults_length_repr_and_to():
    bank = MemoryBank(7, 3)
    assert (bank.momentum, bank.normalize, len(bank)) == (0.5, True, 7)
    assert repr(bank) == (
        'MemoryBank(7, 3, momentum=0.5, normalize=True, dtype=torch.float32)'
    )
    assert bank.to('meta') is bank and bank.rows.device.type == 'meta'


def test_save_and_load():
    bank, other = make(seed=1), make(seed=2, dtype=torch.bfloat16)
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.rows.dtype == torch.bfloat16
    assert torch.equal(other.rows, bank.rows.bfloat16())
    bank.rows.zero_()
    assert other.rows.abs().sum() > 0
