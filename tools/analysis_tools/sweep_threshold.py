"""One trained model at many budgets: accuracy over MACs, without training.

    python tools/analysis_tools/sweep_threshold.py CONFIG CHECKPOINT

Moves the probability above which a gate opens its channel, tests at each,
and writes a table (CSV) and a plot (PNG and SVG) into the work dir.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

# The tools and the package of one clone belong together, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
try:
    import fgc_mm.registered  # noqa: F401  (checks the installation)
except ImportError as error:
    if not isinstance(error, ValueError):  # not its StackError: a bug
        raise
    sys.exit(f'error: {error}')

from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from fgc_mm.engine import command_line
from fgc_mm.engine.atomic_file import write_atomically
from fgc_mm.engine.checkpoint import read_checkpoint
from fgc_mm.errors import FGCError
from fgc_mm.figure_style import (
    FORMATS,
    figure_bytes,
    in_style,
    new_figure,
    series_style,
)
from fgc_mm.models import GatedImageClassifier

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def main() -> None:
    """Test at every threshold, then write."""
    args = parse_args()
    cfg = command_line.load_config(args.config)
    read_checkpoint(args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False
    command_line.choose_work_dir(cfg, args)
    command_line.override(cfg, args.cfg_options)
    rows = sweep(cfg, args.thresholds)
    show(rows)
    folder = Path(cfg.work_dir)
    write_atomically(as_csv(rows), folder / 'threshold_sweep.csv')
    for kind in FORMATS:
        write_atomically(draw(rows, kind), folder / f'threshold_sweep.{kind}')
    print(f'written: {folder}/threshold_sweep.csv, .png and .svg')


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for table, plot and log')
    parser.add_argument(
        '--thresholds', type=float, nargs='+', default=THRESHOLDS
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=command_line.ConfigOptions
    )
    return parser.parse_args()


def sweep(cfg: Config, thresholds: list[float]) -> list[dict[str, float]]:
    """Threshold, accuracy and MACs of every test."""
    for threshold in thresholds:
        if not 0 < threshold < 1:
            raise FGCError(
                f'--thresholds {threshold} is no probability that a channel '
                'can pass; give numbers between 0 and 1.'
            )
    cfg.get('model', {}).pop('distillation', None)  # for training only
    runner = Runner.from_cfg(cfg)
    if not isinstance(runner.model, GatedImageClassifier):
        raise FGCError(
            f'the model of {cfg.filename} has no gates; give the config of a '
            'gated one.'
        )
    gates = runner.model.backbone.gates.values()
    for gate in gates:
        if not isinstance(getattr(gate, 'threshold', None), float):
            raise FGCError(
                f'{type(gate).__name__} compares no probability, so there is '
                'no threshold to move; its budget is set when it is trained.'
            )
    rows = []
    for threshold in thresholds:
        for gate in gates:
            gate.threshold = threshold
        metrics = runner.test()
        rows.append(
            dict(
                threshold=threshold,
                accuracy=metrics['accuracy/top1'],
                macs=metrics['macs/mean'],
                pruning_ratio=metrics['macs/pruning_ratio'],
                keep_ratio=metrics['macs/keep_ratio'],
            )
        )
    return rows


def show(rows: list[dict[str, float]]) -> None:
    """Print the table."""
    table = Table(title='one model, many budgets')
    for name in rows[0]:
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(
            f'{row["threshold"]:g}', f'{row["accuracy"]:.2f} %',
            f'{row["macs"]:,.0f}', f'{row["pruning_ratio"]:.1f} %',
            f'{row["keep_ratio"]:.3f}',
        )  # fmt: skip
    Console().print(table)


def as_csv(rows: list[dict[str, float]]) -> bytes:
    """The table, a line per threshold."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@in_style()
def draw(rows: list[dict[str, float]], kind: str = 'png') -> bytes:
    """Accuracy over MACs, each point with its threshold; PNG or SVG."""
    figure = new_figure(height=2.6)
    axes = figure.subplots()
    macs = [row['macs'] / 1e6 for row in rows]
    accuracy = [row['accuracy'] for row in rows]
    axes.plot(macs, accuracy, **series_style(0))
    for row, x, y in zip(rows, macs, accuracy):
        axes.annotate(
            f'{row["threshold"]:g}', (x, y), (3, -9),
            textcoords='offset points', fontsize='small',
        )  # fmt: skip
    axes.set_xlabel('mean MACs per image (millions)')
    axes.set_ylabel('top-1 accuracy (%)')
    axes.set_title('at each gate threshold')
    axes.grid(True)
    return figure_bytes(figure, kind)


if __name__ == '__main__':
    sys.exit(command_line.run_tool(main))
