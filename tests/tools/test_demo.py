"""tools/demo.py: what it reads and what it shows."""

import subprocess
from types import SimpleNamespace

from rich.console import Console

from fgc_mm.config_files import config_file

from .conftest import load_tool

LINE = (
    '01/01 00:00:00 - mmengine - INFO - Epoch(train)  [12][11/22]  '
    'base_lr: 1.0e-01 lr: 1.0e-01  eta: 0:01:07  time: 0.0388  loss: 0.25'
)


def test_progress_is_read_from_the_log(tmp_path):
    demo = load_tool('demo')
    run = demo.DemoRun('dense', tmp_path)
    run.log.write_text('')
    assert run.progress() == (0.0, 'unknown')
    run.log.write_text(LINE + '\n')
    assert run.progress() == (11.5, '0:01:07')


def test_progress_counts_the_epochs_of_the_configs():
    from mmengine.config import Config

    demo = load_tool('demo')
    for _, name in demo.CONFIGS:
        config = Config.fromfile(config_file(f'{name}.py'))
        assert config.train_cfg.max_epochs == demo.EPOCHS


def test_the_table_shows_both_networks_side_by_side():
    demo = load_tool('demo')
    table = demo.compare(
        {
            'dense': {'accuracy/top1': 99.5},
            'dynamic (FGC)': {
                'accuracy/top1': 98.25,
                'macs/mean': 1_500_000.4,
                'macs/dense': 2_500_000.0,
                'macs/pruning_ratio': 40.0,
                'macs/keep_ratio': 0.5432,
            },
        }
    )
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table)
    dense, dynamic = captured.get().splitlines()[-3:-1]
    for cell in ('dense', '99.50 %', '2,500,000', '0.0 %', '1.000'):
        assert cell in dense
    for cell in ('dynamic', '98.25 %', '1,500,000', '40.0 %', '0.543'):
        assert cell in dynamic


def test_the_end_of_a_log_is_shown_as_it_is(tmp_path, monkeypatch, capsys):
    """Brackets in it are no markup."""
    demo = load_tool('demo')

    def train(run, _):
        run.work_dir.mkdir(parents=True)
        run.log.write_text('a\nb\nc [/home/a]\nd [red]\n')
        run.process = subprocess.Popen(['false'])

    monkeypatch.setattr(demo.DemoRun, 'train', train)
    assert demo.main(SimpleNamespace(work_dir=tmp_path, seed=0)) == 2
    text = capsys.readouterr().out
    assert 'b\nc [/home/a]\nd [red]\n' in text and 'dense failed' in text
