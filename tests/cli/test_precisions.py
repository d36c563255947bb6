"""The parsers' copy of names that they cannot import without torch."""

from fgc_mm.cli.arguments import PRECISIONS
from fgc_mm.deploy.dynamic.dynamic_plan import BFLOAT16, FLOAT32


def test_the_precisions_of_the_options_are_those_of_to_dynamic():
    assert PRECISIONS == (FLOAT32, BFLOAT16)
