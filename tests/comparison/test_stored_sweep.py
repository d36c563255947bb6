"""A sweep that is added to the numbers of a run that were kept before."""

import json

import pytest

from fgc_mm.comparison.stored_results import add_sweep
from fgc_mm.errors import FGCError


def rows(*accuracies, thresholds=(0.3, 0.5)):
    return [
        dict(threshold=t, accuracy=a, macs=4.0)
        for t, a in zip(thresholds, accuracies)
    ]


def test_it_is_added_and_nothing_else_changes(tmp_path):
    file, result = tmp_path / 'seed0.json', dict(error=25.0, method='a')
    add_sweep(file, result, rows(76.0, 75.1))
    written = json.loads(file.read_text())
    assert written.pop('threshold_sweep') == rows(76.0, 75.1)
    assert written == result == dict(error=25.0, method='a')


@pytest.mark.parametrize(
    ('sweep', 'words'),
    [
        (rows(76.0, 74.0), 'error of 25.00 %, but the checkpoint has 26.0'),
        (rows(75.0, thresholds=[0.4]), 'without 0.5 cannot be compared'),
    ],
)
def test_a_sweep_of_another_run_is_refused(tmp_path, sweep, words):
    with pytest.raises(FGCError, match=words):
        add_sweep(tmp_path / 'seed0.json', dict(error=25.0), sweep)
    assert [*tmp_path.iterdir()] == []
