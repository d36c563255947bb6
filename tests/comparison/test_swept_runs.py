"""Which runs are tested at other thresholds, and when they are done."""

import json
from pathlib import Path

import pytest

from fgc_mm.comparison.plan import has_threshold
from fgc_mm.comparison.results import read_result
from fgc_mm.comparison.run import Method, Run
from fgc_mm.engine.config_file import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ('config', 'swept'),
    [
        ('fgc_resnet20_folder16_55', True),
        ('ftwt_resnet20_folder16', True),
        ('fbs_resnet20_folder16', False),
        ('manidp_resnet20_folder16', False),
        ('dense_resnet20_folder16', False),
    ],
)
def test_gates_that_compare_a_probability_are_swept(config, swept):
    cfg = load_config(str(ROOT / 'configs' / f'{config}.py'))
    assert has_threshold(cfg) is swept


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose training has ended."""
    monkeypatch.setattr(Run, 'trained', lambda self: True)
    config = tmp_path / 'a.py'
    method = Method('a', config, 2, False, (), {}, 'x', sweeps=True)
    return Run(method, 0, tmp_path)


def test_a_run_that_was_tested_before_is_swept_now(run):
    """As were all runs before there was a sweep."""
    run.metrics.write_text('{}')
    (run.folder / 'result.json').write_text('{"seed": 0}')
    state, command = run.next_step()
    assert state == 'testing'
    place = command.index('--threshold-sweep')
    assert command[place + 1] == str(run.sweep)
    run.sweep.write_text(json.dumps([]))
    run.metrics.write_text('{}')
    assert run.next_step() is None
    assert read_result(run) is None  # older than its test


def test_a_run_without_thresholds_is_tested_once(run):
    method = Method('a', run.method.config, 2, False, (), {}, 'x')
    plain = Run(method, 0, run.folder)
    assert '--threshold-sweep' not in plain.next_step()[1]
    plain.metrics.write_text('{}')
    assert plain.next_step() is None
