import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.memory import MemoryBank


def make(length=20, dim=4, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return MemoryBank(length, dim, generator=generator, **options)


@pytest.mark.parametrize('other', [(21, 4), (20, 5)])
def test_load_shape_error(other):
    bank = make()
    before = bank.rows.clone()
    with pytest.raises(FGCError) as error:
        bank.load_state_dict(make(*other).state_dict())
    assert str(other) in str(error.value) and '(20, 4)' in str(error.value)
    assert 'same training set' in str(error.value)
    assert torch.equal(bank.rows, before)


def test_load_without_rows_error():
    with pytest.raises(FGCError, match="'rows' is needed"):
        make().load_state_dict({'momentum': 0.5})


@pytest.mark.parametrize('wrong', [-1, 20, 50213])
def test_index_error_writes_nothing(wrong):
    bank = make()
    before = bank.rows.clone()
    with pytest.raises(FGCError) as error:
        bank.update(torch.tensor([0, wrong, 1, 99]), torch.ones(4, 4))
    assert str(error.value).startswith(
        f'sample_idx {wrong} is outside the memory bank (20 rows, one per '
        'image of the training set); '
    )
    assert torch.equal(bank.rows, before)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_not_finite_error_writes_nothing(value):
    bank = make()
    before = bank.rows.clone()
    values = torch.ones(4, 4)
    values[2, 3] = values[3, 0] = value
    with pytest.raises(FGCError, match='value for sample_idx 7 is not finite'):
        bank.update(torch.tensor([0, 1, 7, 3]), values)
    assert torch.equal(bank.rows, before)


def test_value_beyond_a_half_bank_error():
    bank = make(dtype=torch.float16)
    with pytest.raises(FGCError, match=r'not finite in torch.float16'):
        bank.update(torch.tensor([0]), torch.full((1, 4), 1e6))


@pytest.mark.parametrize(
    ('indices', 'values'),
    [
        (torch.zeros(2), torch.ones(2, 4)),
        (torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 4)),
        (torch.zeros(2, dtype=torch.int64), torch.ones(2, 5)),
        (torch.zeros(2, dtype=torch.int64), torch.ones(3, 4)),
        (torch.zeros(2, dtype=torch.int64), torch.ones(2, 4).long()),
    ],
)
def test_update_shape_error(indices, values):
    with pytest.raises(FGCError, match=r'floats \(N, 4\) are needed'):
        make().update(indices, values)


@pytest.mark.parametrize('momentum', [-0.1, 1.0, 1.5, math.nan])
def test_momentum_error(momentum):
    with pytest.raises(FGCError, match=r'is outside \[0, 1\)'):
        make(momentum=momentum)


@pytest.mark.parametrize('size', [(0, 4), (4, 0)])
def test_size_error(size):
    with pytest.raises(FGCError, match='both must be at least 1'):
        make(*size)


def test_init_error():
    with pytest.raises(
        FGCError, match="init='zeros' of a memory bank is unknown"
    ):
        make(init='zeros')
