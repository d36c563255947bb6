"""Trains and tests a dense and a dynamic ResNet-20 in a few minutes."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from fgc_mm.command_process import command_of
from fgc_mm.config_files import config_file

CONFIGS = (
    ('dense', 'dense_resnet20_digits'),
    ('dynamic (FGC)', 'fgc_resnet20_digits'),
)
EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[(\d+)/(\d+)\].*?eta: (\S+)')
EPOCHS = 100  # to which the configs' schedule is scaled


def main(args: argparse.Namespace) -> int:
    """Train, test, and print the table."""
    console = Console()
    runs = [DemoRun(name, args.work_dir / config) for name, config in CONFIGS]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as a shell
    try:
        return show(console, runs, args)
    finally:
        for run in runs:
            run.stop()


def show(
    console: Console, runs: list['DemoRun'], args: argparse.Namespace
) -> int:
    """Train, test, and print the table."""
    for run in runs:
        run.train(args.seed)
    watch(console, runs)
    for run in runs:
        if run.process.wait() or run.test():
            end = run.log.read_text('utf-8', 'replace').splitlines()[-3:]
            lines = [f'error: {run.name} failed; the end of {run.log}:', *end]
            console.print('\n'.join(lines), markup=False)
            return 2
    console.print(compare({run.name: run.metrics() for run in runs}))
    print(f'Logs, gate tables and checkpoints: {args.work_dir}/')
    return 0


class DemoRun:
    """Training and test of one network; its folder has the config's name."""

    def __init__(self, name: str, work_dir: Path) -> None:
        self.name = name
        self.work_dir = work_dir
        self.log = work_dir / 'demo.log'
        self.process: Any = None

    def train(self, seed: int) -> None:
        """Start fgc-mm train."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.log.write_text('', 'utf-8')
        options = f'randomness.seed={seed}', 'default_hooks.logger.interval=11'
        epochs = f'--epochs={EPOCHS}'
        self._start('train', epochs, '--cfg-options', *options)

    def stop(self) -> None:
        """End the process, if one runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def test(self) -> int:
        """Run fgc-mm test on the last epoch; returns its exit code."""
        last = (self.work_dir / 'last_checkpoint').read_text('utf-8').strip()
        out = f'--out={self.work_dir / "metrics.json"}'
        self._start('test', last, out, '--out-item=metrics')
        return self.process.wait()

    def metrics(self) -> dict[str, float]:
        """Metrics of the test."""
        return json.loads((self.work_dir / 'metrics.json').read_text('utf-8'))

    def progress(self) -> tuple[float, str]:
        """Number of finished epochs, and the remaining time."""
        found = EPOCH.findall(self.log.read_text('utf-8', 'replace'))
        if not found:
            return 0.0, 'unknown'
        epoch, step, steps, remaining = found[-1]
        return int(epoch) - 1 + int(step) / int(steps), remaining

    def _start(self, name: str, *arguments: str) -> None:
        command = command_of(name, config_file(f'{self.work_dir.name}.py'))
        # images of 8 x 8 need no threads, and two networks train at a time
        env = {'OMP_NUM_THREADS': '1', **os.environ}
        with self.log.open('a', encoding='utf-8') as log:
            self.process = subprocess.Popen(
                [*command, *arguments, f'--work-dir={self.work_dir}'],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
            )


def watch(console: Console, runs: list[DemoRun]) -> None:
    """Show the progress of the training runs until they end."""
    printed = time.monotonic()
    with _bars(console) as bars:
        tasks = [bars.add_task(r.name, total=EPOCHS, left='') for r in runs]
        while any(run.process.poll() is None for run in runs):
            time.sleep(0.5)
            seen = [run.progress() for run in runs]
            for task, (done, left) in zip(tasks, seen):
                bars.update(task, completed=done, left=left)
            # without a terminal, as in the log of a build
            if not console.is_terminal and time.monotonic() - printed > 15:
                printed = time.monotonic()
                for run, (done, left) in zip(runs, seen):
                    console.print(
                        f'training {run.name}: {done:.0f} of {EPOCHS} '
                        f'epochs, time left {left}'
                    )


def compare(results: dict[str, dict[str, float]]) -> Table:
    """The table of both networks."""
    dense_macs = results['dynamic (FGC)']['macs/dense']
    table = Table(title="ResNet-20 on scikit-learn's digits, 360 held out")
    table.add_column('network')
    for column in ('test accuracy', 'mean MACs', 'MACs pruned', 'keep ratio'):
        table.add_column(column, justify='right')
    for name, metrics in results.items():
        table.add_row(
            name,
            f'{metrics["accuracy/top1"]:.2f} %',
            f'{metrics.get("macs/mean", dense_macs):,.0f}',
            f'{metrics.get("macs/pruning_ratio", 0.0):.1f} %',
            f'{metrics.get("macs/keep_ratio", 1.0):.3f}',
        )
    return table


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn('training {task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('epochs, time left {task.fields[left]}'),
        console=console,
        disable=not console.is_terminal,
    )
