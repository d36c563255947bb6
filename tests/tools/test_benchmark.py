"""tools/benchmark.py: every row, or why there is none."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fgc_mm.cli.run_tool import run_tool
from fgc_mm.deploy import build_model
from fgc_mm.deploy.timing import interleaved_times as timing
from fgc_mm.deploy.timing.interleaved_times import Times, interleaved_times
from fgc_mm.deploy.timing.macs_ratios import (
    format_time_ratio,
    mask_repeat_rate,
    site_macs_ratios,
)
from fgc_mm.runtime.library import has_bfloat16

from .conftest import main_of

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'bas_resnet20_digits.py'
# exporters take a second for each block: here are two
SMALL = f"""
_base_ = [{str(CONFIG)!r}]
model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='ResNet_CIFAR', depth=18, base_channels=16,
            stem_channels=16, num_stages=1, strides=(1,), dilations=(1,),
            out_indices=(0,))),
    head=dict(in_channels=16))
"""
TOOL = ROOT / 'tools' / 'benchmark.py'


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """What the tool did, and wrote."""
    folder = tmp_path_factory.mktemp('benchmark')
    config = folder / 'small.py'
    config.write_text(SMALL)
    torch.manual_seed(0)
    model = build_model(Config.fromfile(config))
    for gate in model.backbone.gates.values():
        nn.init.normal_(gate.squeeze.weight)
        gate.expand.bias.data[:3] -= 100
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'x.pth')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', TOOL, config, 'x.pth', '--out', 'b',
         '--images', '8', '--rounds', '1', '--threads', '1', '--no-compile'],
        cwd=folder, text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((folder / 'b' / 'benchmark.json').read_text())
    return done.stdout, content, folder / 'b'


def test_every_row_has_times_or_a_reason(report):
    text, content, folder = report
    (run,) = content['runs']
    kinds = {row['kind'] for row in run['rows']}
    assert ('bfloat16' in kinds) == has_bfloat16()
    kinds.discard('bfloat16')
    assert kinds == {'dense', 'masked', 'compact', 'dynamic', 'both', 'static'}
    for row in run['rows']:
        assert bool(row['why_not']) != ('ms' in row)
        if 'ms' in row:
            assert 0 < row['ms_low'] <= row['ms'] <= row['ms_high']
            assert row['count'] == 8
            assert row['noise'] == (
                row['time_ratio'] > row['macs_ratio']
                and row['name'] != run['best_dense']
                and 'bfloat16' not in row['name']
            )
    dense = [r for r in run['rows'] if r['kind'] == 'dense' and 'ms' in r]
    best = min(dense, key=lambda row: row['ms'])
    assert run['best_dense'] == best['name']
    assert best['time_ratio'] == 1 and best['macs_ratio'] == 1
    assert len(run['sites']) == 2
    assert (folder / 'benchmark.png').stat().st_size > 5000
    assert run['best_dense'] in text


def test_the_profile_has_every_step(report):
    text, content, _ = report
    profile = content['runs'][0]['profile']
    names = [step['name'] for step in profile['steps']]
    gates = {name for name in names if name.startswith('gate of ')}
    assert len(gates) == 2  # of several steps each
    assert names[-2:] == ['mean', 'linear']
    assert all(step['ms'] > 0 for step in profile['steps'])
    rows = {row['name']: row for row in content['runs'][0]['rows']}
    whole = sum(profile['groups'].values())
    assert whole == pytest.approx(rows['dynamic']['ms'])
    by_group = dict.fromkeys(profile['groups'], 0.0)
    for step in profile['steps']:
        by_group[step['group']] += step['ms']
    for name, ms in by_group.items():
        if name != 'calls, cold caches':
            assert profile['groups'][name] == pytest.approx(ms)
    assert by_group['gates'] > 0 and by_group['layers of sites'] > 0
    assert 'longest steps, in ms: ' in text


def test_the_theoretical_speedup_is_that_of_the_macs(report):
    _, content, _ = report
    rows = {row['name']: row for row in content['runs'][0]['rows']}
    dynamic, static = rows['dynamic'], rows['static, eager']
    assert dynamic['macs_ratio'] > 1.1
    # as many channels on average, but without gates
    assert static['macs_ratio'] == pytest.approx(
        dynamic['macs_ratio'], rel=0.15
    )


def test_repeated_masks(report):
    masks = [
        torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0]]),
        torch.tensor([[1.0], [2.0], [0.0], [0.5]]),  # a factor is open
    ]
    assert mask_repeat_rate(masks) == pytest.approx((2 + 2) / 8)
    assert mask_repeat_rate([]) == 0
    run = report[1]['runs'][0]
    assert 0 <= run['masks_seen_before'] <= 1
    assert 'of the masks were those of an earlier image' in report[0]


def test_a_time_ratio_above_that_of_macs_is_noise():
    assert format_time_ratio(1.2, 1.5) == '1.20 x'
    assert 'noise' in format_time_ratio(1.6, 1.5)


def test_sites_are_counted_alone(tiny):
    model = tiny.build()
    table = model.macs_table((3, 16, 16))
    masks = [torch.ones(2, c) for c in table.channels]
    assert site_macs_ratios(table, masks) == [1.0] * len(masks)
    masks[0][:, ::2] = 0  # half of the channels, half of both its layers
    first, *others = site_macs_ratios(table, masks)
    assert first == pytest.approx(2) and others == [1.0] * len(others)


def test_times_are_taken_in_turns():
    taken = []
    runs = {
        name: (lambda x, n=name: taken.append((n, int(x)))) for name in 'abc'
    }
    batches = [torch.tensor(number) for number in range(5)]
    times = interleaved_times(runs, batches, 2, warm_up=1, settle=0)
    assert sorted(taken[:3]) == [('a', 0), ('b', 0), ('c', 0)]
    pairs = list(zip(taken[3::2], taken[4::2]))  # untimed, timed
    assert all(one[0] == two[0] for one, two in pairs)
    assert all((one[1] + 1) % 5 == two[1] for one, two in pairs)
    timed = [two for _, two in pairs]
    turns = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert [{batch for _, batch in turn} for turn in turns] == [
        {number % 5} for number in range(10)
    ]
    orders = {tuple(name for name, _ in turn) for turn in turns}
    assert len(orders) > 2  # drawn anew
    assert all(sorted(order) == ['a', 'b', 'c'] for order in orders)
    assert times['a'].count == 10
    assert Times.of([0.001, 0.002, 0.003]).median == pytest.approx(2)


def test_a_small_network_runs_several_batches_before_a_timed_one(monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def run(batch):
        clock.now += 3.0
        taken.append(int(batch))

    taken = []
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock.now)
    batches = [torch.tensor(number) for number in range(4)]
    times = interleaved_times({'a': run}, batches, 1, warm_up=0, settle=7)
    # three untimed ones, back from the one before, then the timed one
    assert taken == [3, 2, 1, 0, 0, 3, 2, 1, 1, 0, 3, 2, 2, 1, 0, 3]
    assert times['a'].count == 4 and times['a'].median == 3000
    taken.clear()
    interleaved_times({'a': run}, batches[:1], 1, warm_up=0, settle=7)
    assert taken == [0, 0, 0, 0]  # the only one there is


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (('--threads', '0'), '--threads 0'),
        (('--batch', '9', '--images', '4'), '--batch 9'),
        (('--images', '0'), '0 images'),
        (('--calibration', '0'), '--calibration 0'),
        (('--size', '160', '192', '224'), '--size 160 192 224'),
    ],
)
def test_bad_input_is_one_sentence(report, options, told, monkeypatch, capfd):
    folder = report[2].parent
    monkeypatch.chdir(folder)
    command = [str(TOOL), 'small.py', 'x.pth', '--out', 'c', *options]
    monkeypatch.setattr(sys, 'argv', command)
    assert run_tool(main_of('benchmark')) == 2
    said = capfd.readouterr().err
    assert told in said and 'Traceback' not in said
