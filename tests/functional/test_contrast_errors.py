import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import neighbor_contrast


def batch(count, length, dim, chosen, seed=0):
    torch.manual_seed(seed)
    queries = torch.randn(count, dim, requires_grad=True)
    bank = torch.nn.functional.normalize(torch.randn(length, dim))
    positives = torch.stack(
        [torch.randperm(length)[:chosen] for _ in range(count)]
    )
    return queries, bank, positives


def test_form_error():
    with pytest.raises(FGCError, match="form='nce' of a contrast is unknown"):
        neighbor_contrast(*batch(2, 5, 3, 1), 0.1, 'nce')


@pytest.mark.parametrize('temperature', [0, -0.1])
def test_temperature_error(temperature):
    with pytest.raises(FGCError, match=r'temperature .* is not positive'):
        neighbor_contrast(*batch(2, 5, 3, 1), temperature)


@pytest.mark.parametrize('wrong', [-1, 5])
def test_row_number_error(wrong):
    queries, bank, positives = batch(2, 5, 3, 2)
    positives[1, 1] = wrong
    with pytest.raises(FGCError, match=f'positive {wrong} is outside the ban'):
        neighbor_contrast(queries, bank, positives, 0.1)


@pytest.mark.parametrize(
    'positives',
    [
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.zeros(2, 2),
        torch.zeros(2, 0, dtype=torch.int64),
    ],
)
def test_positives_error(positives):
    queries, bank, _ = batch(2, 5, 3, 1)
    with pytest.raises(FGCError, match=r'int64 of shape \(2, P\)'):
        neighbor_contrast(queries, bank, positives, 0.1)


def test_shape_error():
    queries, bank, positives = batch(2, 5, 3, 1)
    with pytest.raises(FGCError, match='have the same number of channels'):
        neighbor_contrast(queries, bank[:, :2], positives, 0.1)
