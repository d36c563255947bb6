"""The examples in the docstrings of public classes and functions run."""

import doctest
import sys

import pytest
import torch

from fgc_mm import gates, losses
from fgc_mm.deploy import to_dynamic
from fgc_mm.models import GatedBackbone
from fgc_mm.sites import find_sites

GATES = [
    value
    for value in vars(gates).values()
    if isinstance(value, type)
    and issubclass(value, torch.nn.Module)
    and value not in (gates.GroupedGate, gates.PartialGate)
]
LOSSES = [
    value
    for value in vars(losses).values()
    if isinstance(value, type)
    and issubclass(value, losses.GateLoss)
    and value is not losses.GateLoss
]


@pytest.mark.parametrize(
    'documented',
    [find_sites, *GATES, *LOSSES, GatedBackbone, to_dynamic],
    ids=lambda documented: documented.__name__,
)
def test_the_example_runs(documented):
    names = dict(vars(sys.modules[documented.__module__]))
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(documented, globs=names)
    torch.manual_seed(0)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
