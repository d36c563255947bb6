"""Names of the classes in a config."""

import pytest
from torch.optim import SGD

from fgc_mm.type_name import type_name


@pytest.mark.parametrize(
    'part',
    [
        dict(type='SGD'),
        dict(type='scope.SGD'),
        dict(type='torch.optim.SGD'),
        dict(type=SGD),
        SGD.__new__(SGD),
    ],
)
def test_every_way_to_name_a_class(part):
    assert type_name(part) == 'SGD'


def test_no_type():
    assert type_name({}) == ''
