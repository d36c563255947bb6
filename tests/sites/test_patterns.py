"""Choosing by name."""

import pytest

from fgc_mm.errors import FGCError
from fgc_mm.sites import match_names

NAMES = ['a.0.conv1', 'a.1.conv1', 'b.0.conv1', 'B.0.conv1']


@pytest.mark.parametrize(
    ('patterns', 'found'),
    [
        (['*'], NAMES),
        (['b.*', 'a.0*'], [NAMES[0], NAMES[2]]),
        (['a.*', 'a.0.conv1'], NAMES[:2]),
        (['?.0.conv1'], [NAMES[0], *NAMES[2:]]),
        (('B.*',), [NAMES[3]]),
    ],
)
def test_each_name_once_in_its_own_order(patterns, found):
    assert match_names(patterns, NAMES, 'the pattern') == found


@pytest.mark.parametrize(
    ('patterns', 'names', 'rest'),
    [
        (['c.*'], NAMES[:2], "'c.*' matches no gate site; choose among "
         'a.0.conv1, a.1.conv1.'),
        (['*'], [], "'*' matches no gate site; choose among none: "),
        ('a.*', NAMES, "is 'a.*', which is not a list of patterns; write "
         "['a.*']."),
        ([], NAMES, "is [], which is not a list of patterns; write ['*']."),
    ],
)  # fmt: skip
def test_the_error_names_value_rule_and_remedy(patterns, names, rest):
    with pytest.raises(FGCError) as caught:
        match_names(patterns, names, 'the pattern')
    assert str(caught.value).startswith(f'the pattern {rest}')
