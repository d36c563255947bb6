"""The main job in minutes: a dense and a dynamic ResNet-20, side by side.

Trains both on scikit-learn's handwritten digits with tools/train.py, tests
their last epoch with tools/test.py, and prints accuracy and MACs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'dense': 'dense_resnet20_digits',
    'dynamic (FGC)': 'fgc_resnet20_digits',
}
EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[(\d+)/(\d+)\].*?eta: (\S+)')
EPOCHS = 100


def main() -> int:
    """Train, test, and print the table."""
    args = parse_args()
    console = Console()
    results = {}
    for name, config in CONFIGS.items():
        work_dir = args.work_dir / config
        log = work_dir / 'demo.log'
        code = train(console, name, config, work_dir, log, args.seed)
        code = code or test(config, work_dir, log)
        if code:
            console.print(f'error: {config} failed; the reason ends {log}:')
            console.print('\n'.join(log.read_text().splitlines()[-3:]))
            return code
        results[name] = json.loads((work_dir / 'metrics.json').read_text())
    console.print(compare(results))
    console.print(f'Logs, gate tables and checkpoints: {args.work_dir}/')
    return 0


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo')
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def train(
    console: Console,
    name: str,
    config: str,
    work_dir: Path,
    log: Path,
    seed: int,
) -> int:
    """Run tools/train.py with a progress bar; its exit code."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'train.py'),
        str(ROOT / 'configs' / f'{config}.py'),
        f'--work-dir={work_dir}',
        '--cfg-options',
        f'randomness.seed={seed}',
        'default_hooks.logger.interval=11',
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with log.open('w') as file, _progress(console) as bar:
        task = bar.add_task(f'training {name}', total=EPOCHS)
        for line in process.stdout:
            file.write(line)
            found = EPOCH.search(line)
            if found:
                epoch, step, steps = map(int, found.groups()[:3])
                bar.update(task, completed=epoch - 1 + step / steps)
                _say_now_and_then(console, name, epoch, step, found[4])
    return process.wait()


def test(config: str, work_dir: Path, log: Path) -> int:
    """Run tools/test.py on the last checkpoint; its exit code."""
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'test.py'),
        str(ROOT / 'configs' / f'{config}.py'),
        (work_dir / 'last_checkpoint').read_text().strip(),
        f'--work-dir={work_dir}',
        f'--out={work_dir / "metrics.json"}',
        '--out-item=metrics',
    ]
    with log.open('a') as file:
        return subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode


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


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('epochs, left'),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _say_now_and_then(
    console: Console, name: str, epoch: int, step: int, eta: str
) -> None:
    # where no bar can be drawn, as in the log of a build
    if not console.is_terminal and epoch % 10 == 0 and step > 11:
        console.print(f'training {name}: epoch {epoch}, left {eta}')


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('interrupted')
