"""A row with a pruning ratio of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from fgc_mm.comparison.entry import Entry, Start
from fgc_mm.comparison.plan import plan, read_method
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.study import Study
from fgc_mm.errors import FGCError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DENSE = str(CONFIGS / 'dense_resnet20_digits.py')
BUDGET = str(CONFIGS / 'fgc_resnet20_digits_55.py')
STUDY = Study('x', (), (0,), epochs=2, match_macs=True)


def static(share):
    start = Start(DENSE)
    return Entry(DENSE, 'fpgm', f'x{share}', start=start, pruning_ratio=share)


def test_a_row_of_a_plan_has_its_own_ratio(tmp_path):
    file = tmp_path / 'plan.yaml'
    file.write_text('methods: [a.py, {config: b.py, pruning_ratio: 0.35}]')
    first, second = read_study(file).entries
    assert (first.pruning_ratio, second.pruning_ratio) == (None, 0.35)


def test_static_pruning_takes_that_of_its_row():
    for share, taken in ((None, 0.55), (0.35, 0.35)):
        method = read_method(static(share), STUDY)
        assert method.pruning_ratio == taken
        assert method.recipe['pruning_ratio'] == taken


def test_gates_are_trained_for_the_ratio_of_their_row():
    method = read_method(Entry(BUDGET, pruning_ratio=0.7), STUDY)
    assert [o for o in method.options if o.endswith('pruning_ratio=0.7')]


@pytest.mark.parametrize('share', [0.0, 1.0, 55.0])
def test_a_ratio_outside_of_0_to_1_is_refused(tmp_path, share):
    with pytest.raises(
        FGCError, match=f'--pruning-ratio {share} is not a fraction'
    ):
        plan(replace(STUDY, entries=(static(share),)), tmp_path)
