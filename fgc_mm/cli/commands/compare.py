"""Methods side by side: trains, tests, and writes one table.

    fgc-mm compare CONFIG [CONFIG ...] --seeds 0 1 2 --work-dir DIR
    fgc-mm compare --plan configs/studies/NAME.yaml --work-dir DIR

A plan is a file with the rows (configs, and variants of one by their own
options), seeds, epochs and questions; docs/comparing.md has its keys. What
the command line says as well replaces what the plan says for all rows; what
a row says of itself stays.

Every config is trained with every seed by fgc-mm train, and its last
checkpoint tested by fgc-mm test. What is in DIR already is taken; what was
interrupted goes on: run the same command again. After every finished run
DIR gets the table so far: compare.md, compare.csv, runs.csv (one line per
run), compare.png and compare.svg (error over MACs). Logs:
DIR/runs/METHOD/seedN/run.log.

A CONFIG written as IMPORTANCE:CONFIG is static pruning: the dense model of
--pretrain is pruned to --pruning-ratio by fgc-mm prune-static (importance:
fpgm, group_norm, bn_scale, random) and then trained by that config's recipe:

    fgc-mm compare configs/dense_resnet20_folder.py \\
        configs/fgc_resnet20_folder.py fpgm:configs/dense_resnet20_folder.py \\
        --pretrain configs/dense_resnet20_folder.py --pretrain-epochs 20 \\
        --epochs 100 --seeds 0 1 2 --work-dir work_dirs/compare

Several methods that share a first stage, here one of batch shaping:

    fgc-mm compare configs/bas_resnet20_cifar10_stage2.py \\
        configs/fgc_resnet20_cifar10_stage2.py \\
        --pretrain configs/bas_resnet20_cifar10_stage1.py \\
        --seeds 0 1 2 --work-dir work_dirs/stages

Exit status: 0 all done, 1 a run has failed, 2 bad input, 75 stopped by a
signal (the runs were told to save first).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from fgc_mm.cli.arguments import text_parser
from fgc_mm.comparison.board import Board
from fgc_mm.comparison.dispatch import Dispatcher
from fgc_mm.comparison.entry import Entry, Start, split_entry
from fgc_mm.comparison.plan import Settings, plan
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.report import write_report
from fgc_mm.comparison.results import keep_result, read_result, write_result
from fgc_mm.comparison.run import Run
from fgc_mm.comparison.study import SEEDS, Study
from fgc_mm.comparison.table import (
    PUBLISHED_FILE,
    of_dataset,
    read_published,
    rows_of,
)
from fgc_mm.comparison.workers import Workers, visible_devices
from fgc_mm.errors import FGCError
from fgc_mm.exit_status import STOPPED
from fgc_mm.reliability.stop_signal import SIGNALS as STOP_SIGNALS
from fgc_mm.reliability.work_dir_lock import WorkDirLock

PRUNING_RATIO = 0.55
SIGNALS = *STOP_SIGNALS, signal.SIGINT


def main() -> None:
    """Plan, run, and write."""
    args = parse_args()
    check_numbers(args)
    study = study_of(args)
    published = of_dataset(
        read_published(args.published),
        args.published_dataset or study.published_dataset,
    )
    settings = Settings(
        args.seeds or study.seeds or SEEDS,
        args.work_dir,
        args.epochs or study.epochs,
        study.options + tuple(args.cfg_options),
        _first(args.pruning_ratio, study.pruning_ratio, PRUNING_RATIO),
        args.match_macs or study.match_macs,
    )
    lock = WorkDirLock()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    lock.take(args.work_dir)
    runs = plan(study.entries, settings)
    launcher = shlex.split(args.launcher)
    devices = [] if launcher else visible_devices()
    jobs = args.jobs or max(len(devices), 1)
    threads = args.threads or max((os.cpu_count() or 1) // jobs, 1)
    comparison = Comparison(
        runs, args.work_dir, published, threads, args.results, study
    )
    comparison.run(Workers(jobs, threads, devices, launcher))
    comparison.leave()


def _first(*values: float | None) -> float:
    """The first that is given; 0 is, and is refused later."""
    return next(value for value in values if value is not None)


def study_of(args: argparse.Namespace) -> Study:
    """The plan of the command line: a file's, or the configs it names.

    Raises:
        FGCError: Neither or both are given, or the plan cannot be read.
    """
    if bool(args.configs) == (args.plan is not None):
        raise FGCError(
            'compare.py has a list of configs and a --plan, and takes one; '
            'leave one out.'
            if args.configs
            else 'compare.py has no configs to compare; name some, or a '
            '--plan.'
        )
    if args.plan is not None:
        if args.pretrain or args.pretrain_epochs:
            raise FGCError(
                '--pretrain stands beside a --plan, which says itself what '
                'its rows start from; set pretrain in the plan.'
            )
        return read_study(args.plan)
    if args.pretrain is None and args.pretrain_epochs is not None:
        raise FGCError(
            f'--pretrain-epochs {args.pretrain_epochs} has nothing to train; '
            'add --pretrain DENSE_CONFIG.'
        )
    start = args.pretrain and Start(args.pretrain, args.pretrain_epochs)
    pairs = [split_entry(text) for text in args.configs]
    entries = (Entry(path, what, start=start) for what, path in pairs)
    return Study('Comparison', tuple(entries))


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = text_parser(__doc__)
    parser.add_argument(
        'configs', nargs='*', metavar='CONFIG', help='or IMPORTANCE:CONFIG'
    )
    parser.add_argument(
        '--plan', type=Path, metavar='YAML',
        help='a file that says what to compare (see docs/comparing.md)',
    )  # fmt: skip
    parser.add_argument('--seeds', type=int, nargs='+', help='default: 0 1 2')
    parser.add_argument('--work-dir', type=Path, required=True, metavar='DIR')
    parser.add_argument(
        '--epochs', type=int, help="for all; default: each config's own"
    )
    parser.add_argument(
        '--jobs', type=int, metavar='K',
        help='runs at once; default: one per GPU, or one',
    )  # fmt: skip
    parser.add_argument(
        '--launcher',
        default='',
        metavar='WORDS',
        help="put in front of every run's command, as in "
        '--launcher "srun -p PARTITION -n1 --gres=gpu:1"; it chooses the GPU',
    )
    parser.add_argument(
        '--threads', type=int, metavar='T',
        help='threads of each run; default: the cores shared out',
    )  # fmt: skip
    parser.add_argument(
        '--pretrain', metavar='CONFIG',
        help='train this one first, once per seed; all others start from it '
        '(a dense config, or the first stage of gated ones)',
    )  # fmt: skip
    parser.add_argument(
        '--pretrain-epochs', type=int, metavar='P',
        help="for so many epochs; default: --epochs, or that config's own",
    )  # fmt: skip
    parser.add_argument(
        '--pruning-ratio', type=float,
        help='share of the MACs that static pruning takes, and all methods '
        'with --match-macs (default: 0.55)',
    )  # fmt: skip
    parser.add_argument(
        '--match-macs', action='store_true',
        help='ask every method for the MACs of --pruning-ratio: by its own '
        'density, a planned ratio, or a MACsTargetLoss in place of its L0Loss',
    )  # fmt: skip
    parser.add_argument(
        '--results', type=Path, metavar='DIR',
        help="also keep every finished run's numbers as "
        'DIR/METHOD/seedN.json, to be committed',
    )  # fmt: skip
    parser.add_argument(
        '--published', type=Path, metavar='CSV',
        default=PUBLISHED_FILE,
        help='published numbers to stand beside ours',
    )  # fmt: skip
    parser.add_argument(
        '--published-dataset', metavar='NAME',
        help="only those of this data set (default: the configs', or all)",
    )  # fmt: skip
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', default=[],
        metavar='KEY=VALUE', help='as in train.py, for every run',
    )  # fmt: skip
    return parser.parse_args()


def check_numbers(args: argparse.Namespace) -> None:
    """Refuses what counts nothing."""
    for name in ('epochs', 'jobs', 'threads', 'pretrain_epochs'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise FGCError(
                f'--{name.replace("_", "-")} {value} is too few; give a '
                'whole number of at least 1.'
            )


class Comparison:
    """The runs, the screen and the report.

    Args:
        runs: All runs.
        folder: Where the report goes.
        published: Rows of the file of published numbers.
        threads: Of each run.
        kept: Where the numbers of finished runs are kept as well, if at all.
        study: Whose title and questions the report has.
    """

    def __init__(
        self,
        runs: list[Run],
        folder: Path,
        published: list[dict[str, str]],
        threads: int,
        kept: Path | None,
        study: Study,
    ) -> None:
        self.kept = kept
        self.study = study
        self.runs = runs
        self.folder = folder
        self.published = published
        self.threads = threads
        self.results: dict[str, dict] = {}
        self.told: str | None = None
        self.board = Board(Console(), runs)

    def run(self, workers: Workers) -> None:
        """Until all is done, has failed or was stopped."""
        dispatcher = Dispatcher(
            self.runs, workers, self._changed, self._finish
        )

        def stop(number: int, _: FrameType | None) -> None:
            self.told = signal.Signals(number).name
            dispatcher.stop()

        old = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            with self.board:
                dispatcher.go(self.board.tick)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def leave(self) -> None:
        """Shows the table; ends with the exit status of the runs."""
        if self.results:
            self._write()
            self.board.show(rows_of(self._in_order()))
            print(f'written: {self.folder}/compare.md, .csv, .png, runs.csv')
        failed = [run for run in self.runs if run.state == 'failed']
        for run in failed:
            line = f'error: {run.name} has failed: {run.reason}'
            print(line, file=sys.stderr)
        if failed and self.told is None:
            raise SystemExit(1)
        if len(self.results) < len(self.runs):
            why = f'told to stop by {self.told}' if self.told else 'stopped'
            line = f'{why}: run the same command again to go on'
            print(line, file=sys.stderr)
            raise SystemExit(STOPPED)

    def _finish(self, run: Run) -> None:
        found = read_result(run) or write_result(run, self.threads)
        self.results[run.name] = found
        if self.kept is not None:
            keep_result(run, self.kept)

    def _changed(self, run: Run) -> None:
        self.board.changed(run, self.results.get(run.name))
        if run.state == 'done':
            self._write()

    def _in_order(self) -> list[dict]:
        names = [run.name for run in self.runs]
        return [self.results[name] for name in names if name in self.results]

    def _write(self) -> None:
        command = ['fgc-mm', 'compare', *sys.argv[1:]]
        write_report(
            self.folder, self.runs, self._in_order(), self.published,
            command, self.study,
        )  # fmt: skip
