"""Trains and tests several methods, and writes one table.

    fgc-mm compare CONFIG [CONFIG ...] --seeds 0 1 2 --work-dir DIR
    fgc-mm compare --plan configs/studies/NAME.yaml --work-dir DIR

A plan is a file with the rows (configs, or variants of one config with their
own options), seeds, epochs and questions; docs/comparing.md lists its keys.
An argument of the command line replaces the plan's setting for all rows, but
not a setting of a single row.

Every config is trained with every seed by fgc-mm train, and its last
checkpoint is tested by fgc-mm test. Finished runs in DIR are used, and
interrupted runs are continued when the same command is run again. After every
finished run the current table is written to DIR: compare.md, compare.csv,
runs.csv (one line per run), compare.png and compare.svg (error over MACs).
Logs: DIR/runs/METHOD/seedN/run.log.

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

On a Slurm cluster, every run as a job (pip install 'fgc_mm[slurm]'):

    fgc-mm compare --plan PLAN --work-dir DIR --slurm partition=gpu \\
        gpus_per_node=1 cpus_per_task=8 timeout_min=720

Exit status: 0 all done, 1 a run has failed, 2 bad input, 75 stopped by a
signal (the runs have saved a checkpoint first).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from fgc_mm.cli.arguments import text_parser
from fgc_mm.comparison.entry import Entry, Start, split_entry
from fgc_mm.comparison.executor import Executor
from fgc_mm.comparison.plan import Settings, plan
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.progress_display import ProgressDisplay
from fgc_mm.comparison.report import write_report
from fgc_mm.comparison.results import read_result, write_result
from fgc_mm.comparison.run import Run
from fgc_mm.comparison.run_scheduler import RunScheduler
from fgc_mm.comparison.slurm_job import take_steps
from fgc_mm.comparison.slurm_options import slurm_executor, slurm_options
from fgc_mm.comparison.stored_results import (
    find_stored_result,
    result_file,
    store_result,
)
from fgc_mm.comparison.study import SEEDS, Study
from fgc_mm.comparison.table import (
    PUBLISHED_FILE,
    published_on,
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
    published = published_on(
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
        args.results,
    )
    start = slurm_jobs if args.slurm is not None else local_workers
    executor, threads = start(args)
    lock = WorkDirLock()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    lock.acquire(args.work_dir)
    runs = plan(study.entries, settings)
    comparison = Comparison(
        runs, args.work_dir, published, threads, args.results, study
    )
    comparison.run(executor)
    comparison.report_and_exit()


def local_workers(args: argparse.Namespace) -> tuple[Executor, int]:
    """Processes on this machine, and the number of threads of each."""
    launcher = shlex.split(args.launcher)
    devices = [] if launcher else visible_devices()
    jobs = args.jobs or max(len(devices), 1)
    threads = args.threads or max((os.cpu_count() or 1) // jobs, 1)
    return Workers(jobs, threads, devices, launcher), threads


def slurm_jobs(args: argparse.Namespace) -> tuple[Executor, int]:
    """Slurm jobs, and the number of threads of each.

    Raises:
        FGCError: ``--slurm`` has a wrong parameter, or cannot be used here.
    """
    if args.launcher:
        raise FGCError(
            f'--slurm and --launcher {args.launcher!r} both start the runs; '
            'leave one out.'
        )
    options = slurm_options(args.slurm)
    executor = slurm_executor(options, args.work_dir / 'slurm')
    # it imports submitit, an optional package
    from fgc_mm.comparison.slurm_jobs import SlurmJobs

    threads = args.threads or options.get('cpus_per_task', 1)
    take = partial(take_steps, threads=threads, finish=write_result)
    return SlurmJobs(executor, args.jobs or sys.maxsize, take), threads


def _first(*values: float | None) -> float:
    """The first value that is not None; 0 is refused later."""
    return next(value for value in values if value is not None)


def study_of(args: argparse.Namespace) -> Study:
    """The study: from a plan file, or from the configs of the command line.

    Raises:
        FGCError: Neither or both are given, or the plan cannot be read.
    """
    if bool(args.configs) == (args.plan is not None):
        raise FGCError(
            'compare.py accepts configs or a --plan, but both are given; '
            'leave one out.'
            if args.configs
            else 'compare.py has no configs to compare; give some, or a '
            '--plan.'
        )
    if args.plan is not None:
        if args.pretrain or args.pretrain_epochs:
            raise FGCError(
                '--pretrain cannot be combined with --plan, since a plan has '
                'its own setting; set pretrain in the plan.'
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
        help='runs at once; default: one per GPU, or one; with --slurm all',
    )  # fmt: skip
    parser.add_argument(
        '--launcher',
        default='',
        metavar='WORDS',
        help="put in front of every run's command, as in "
        '--launcher "srun -p PARTITION -n1 --gres=gpu:1"; it chooses the GPU',
    )
    parser.add_argument(
        '--slurm', nargs='*', metavar='NAME=VALUE',
        help='run every run as a Slurm job with these parameters of '
        'submitit: timeout_min, partition, gpus_per_node, cpus_per_task, '
        'mem_gb, account, ... (docs/comparing.md)',
    )  # fmt: skip
    parser.add_argument(
        '--threads', type=int, metavar='T',
        help='threads of each run; default: the cores shared out, or '
        'cpus_per_task of --slurm',
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
        'DIR/METHOD/seedN.json, to be committed; a run whose numbers are '
        'there is not trained again',
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
    """Checks that numbers are at least 1, and that --results is a folder."""
    results = args.results
    if results is not None and results.exists() and not results.is_dir():
        raise FGCError(
            f'--results {results} is a file, but results are stored in a '
            'folder; give a folder.'
        )
    for name in ('epochs', 'jobs', 'threads', 'pretrain_epochs'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise FGCError(
                f'--{name.replace("_", "-")} is {value}; give a whole '
                'number of at least 1.'
            )


class Comparison:
    """Runs a comparison, shows its progress, and writes the report.

    Args:
        runs: All runs.
        folder: Of the report.
        published: Rows of the file of published numbers.
        threads: Of each run.
        results_folder: Where the results of finished runs are stored too;
            None: nowhere.
        study: With title and questions of the report.
    """

    def __init__(
        self,
        runs: list[Run],
        folder: Path,
        published: list[dict[str, str]],
        threads: int,
        results_folder: Path | None,
        study: Study,
    ) -> None:
        self.results_folder = results_folder
        self.study = study
        self.runs = runs
        self.folder = folder
        self.published = published
        self.threads = threads
        self.results: dict[str, dict] = {}
        self.stopped_by: str | None = None
        self._take_stored()
        self.display = ProgressDisplay(Console(), runs)

    def run(self, executor: Executor) -> None:
        """Run until all runs are done, have failed or were stopped."""
        scheduler = RunScheduler(
            self.runs, executor, self._changed, self._finish
        )

        def stop(number: int, _: FrameType | None) -> None:
            self.stopped_by = signal.Signals(number).name
            scheduler.stop()

        old = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            with self.display:
                for run in self.runs:
                    if run.state == 'done':
                        self._changed(run)
                scheduler.go(self.display.tick)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def report_and_exit(self) -> None:
        """Show the table; exit with the status of the runs."""
        if self.results:
            self._write()
            self.display.show(rows_of(self._in_order()))
            print(f'written: {self.folder}/compare.md, .csv, .png, runs.csv')
        failed = [run for run in self.runs if run.state == 'failed']
        for run in failed:
            line = f'error: {run.name} has failed: {run.reason}'
            print(line, file=sys.stderr)
        if failed and self.stopped_by is None:
            raise SystemExit(1)
        if len(self.results) < len(self.runs):
            by = f' by {self.stopped_by}' if self.stopped_by else ''
            line = f'stopped{by}: run the same command again to continue'
            print(line, file=sys.stderr)
            raise SystemExit(STOPPED)

    def _take_stored(self) -> None:
        """Take the stored results of runs that are not in the work dir.

        A run is trained again if another one has to start from its weights.
        """
        folder = self.results_folder
        if folder is None:
            return
        stored = {r.name: find_stored_result(r, folder) for r in self.runs}
        for run in reversed(self.runs):  # those that start from it first
            found = stored[run.name]
            needed = any(
                r.start is run and r.state != 'done' and not r.trained()
                for r in self.runs
            )
            if found is not None and not needed and not run.trained():
                run.state = 'done'
                run.reason = f'read from {result_file(run, folder)}'
                self.results[run.name] = found

    def _finish(self, run: Run) -> None:
        found = read_result(run) or write_result(run, self.threads)
        self.results[run.name] = found
        if self.results_folder is not None:
            store_result(run, found, self.results_folder)

    def _changed(self, run: Run) -> None:
        self.display.changed(run, self.results.get(run.name))
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
