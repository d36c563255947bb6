"""Accuracy over MACs of one trained model at several gate thresholds."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from fgc_mm.cli.command_runner import TestRunner
from fgc_mm.cli.given_config import (
    apply_options,
    check_gates,
    check_test,
    choose_work_dir,
    drop_distillation,
)
from fgc_mm.comparison.stored_results import (
    add_sweep,
    check_trained,
    read_result_file,
)
from fgc_mm.engine.config_file import load_config
from fgc_mm.evaluation.threshold_sweep import (
    THRESHOLDS,
    check_thresholds,
    sweep_thresholds,
)
from fgc_mm.figure_style import (
    FORMATS,
    figure_bytes,
    in_style,
    new_figure,
    series_style,
)
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.whole_checkpoint import WholeCheckpointHook


def main(args: argparse.Namespace) -> None:
    """Test at every threshold, then write."""
    thresholds = args.thresholds or THRESHOLDS
    stored = args.result and read_result_file(args.result)
    if stored:
        check_trained(args.result, thresholds)
    cfg = load_config(args.config)
    read_checkpoint(args.checkpoint)
    choose_work_dir(cfg, args)
    apply_options(cfg, args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    check_test(cfg)
    check_gates(cfg, 'fgc-mm sweep')
    rows = sweep(cfg, thresholds)
    show(rows)
    folder = Path(cfg.work_dir)
    write_atomically(as_csv(rows), folder / 'threshold_sweep.csv')
    for kind in FORMATS:
        write_atomically(draw(rows, kind), folder / f'threshold_sweep.{kind}')
    print(f'written: {folder}/threshold_sweep.csv, .png and .svg')
    if stored:
        add_sweep(args.result, stored, rows)


def sweep(cfg: Config, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Threshold, accuracy and MACs of every test."""
    check_thresholds(thresholds)
    drop_distillation(cfg)
    runner = TestRunner.from_cfg(cfg)
    runner.register_hook(WholeCheckpointHook())
    return sweep_thresholds(runner, thresholds)


def show(rows: list[dict[str, float]]) -> None:
    """Print the table."""
    table = Table(title='gate thresholds')
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
    axes.margins(0.1)  # the labels of the outer points stay inside
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
