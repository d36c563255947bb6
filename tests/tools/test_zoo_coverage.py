"""The table of all backbones, on a few of them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fgc_mm.cli.commands import zoo_coverage
from fgc_mm.models import GatedBackbone
from fgc_mm.sites import gate_hooks
from fgc_mm.sites.call import state_of

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'zoo_coverage.py'
Row, find_error = zoo_coverage.Row, zoo_coverage.find_error
in_a_process = zoo_coverage.in_a_process

SMALL = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4)


def run(folder, pattern):
    command = [sys.executable, '-W', 'ignore', TOOL, '--pattern', pattern]
    return subprocess.run(
        command, cwd=folder, text=True, capture_output=True, timeout=300
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('zoo')
    done = run(folder, 'resnet18_*cifar10')
    assert done.returncode == 0, done.stderr
    return folder / 'work_dirs'


def test_a_backbone_passes_with_equal_macs(folder):
    (line,) = (folder / 'zoo_coverage.jsonl').read_text().splitlines()
    row = Row(**json.loads(line)['row'])
    assert (row.backbone, row.result, row.macs) == (
        'ResNet_CIFAR', 'passed', 'equal'
    )  # fmt: skip
    assert row.sites == 8 and 0.9 < row.governed < 1
    report = (folder / 'zoo_coverage.md').read_text()
    assert '1 passed' in report and 'resnet18_8xb16_cifar10' in report
    assert '| equal | 1 |' in report


def test_a_second_run_tries_nothing_again(folder):
    rows = folder / 'zoo_coverage.jsonl'
    before = rows.read_text()
    assert run(folder.parent, 'resnet18_*cifar10').returncode == 0
    assert rows.read_text() == before


def test_a_pattern_without_a_model_is_refused(tmp_path):
    done = run(tmp_path, 'no such model')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --pattern 'no such model' matches no model")
    assert not list(tmp_path.iterdir())


def test_what_has_no_site_or_does_not_run_is_a_row():
    row = in_a_process(dict(type='RepVGG', arch='A0'), 60)
    assert row.result == 'no site' and 'parallel branches' in row.reason
    row = in_a_process(dict(type='ResNet', depth=17), 60)
    assert row.result == 'failed' and 'KeyError' in row.reason


@pytest.mark.parametrize(
    ('seconds', 'told'), [(0.01, 'not built in time'), (5, 'no answer')]
)
def test_what_takes_too_long_is_a_row(monkeypatch, seconds, told):
    def slow(_, answers):
        if seconds > 1:
            answers.send(Row('ResNet', 'failed', 'no answer in time'))
        time.sleep(60)

    monkeypatch.setattr(zoo_coverage, 'examine', slow)
    row = in_a_process(SMALL, seconds)
    assert row.result == 'failed' and told in row.reason


def test_a_crash_is_a_row(monkeypatch):
    monkeypatch.setattr(zoo_coverage, 'examine', lambda *_: os._exit(3))
    assert in_a_process(SMALL, 60).reason == 'its process died'


def test_faults_are_found(monkeypatch):
    torch.manual_seed(0)
    gated = GatedBackbone(SMALL, zoo_coverage.GATE).eval()
    images = torch.randn(1, 3, 64, 64)
    assert find_error(gated, images) == ''
    # hooks that leave their consumers unmasked
    monkeypatch.setattr(gate_hooks, 'mask_input', lambda _, x, *__: x)
    layer = gated.backbone.get_submodule(gated.sites[-1].consumers[0].path)
    assert find_error(gated, images) == 'closed channels have an influence'
    layer.register_forward_hook(
        lambda m, a, out: out + 1 if state_of(gated._site_hooks[0]) else None
    )
    assert 'all gates open' in find_error(gated, images)
