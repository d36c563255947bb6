"""Trains and tests several methods, and writes one table."""

import argparse
import shlex
import signal
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from fgc_mm.comparison.documents.sentences import all_answers
from fgc_mm.comparison.entry import Entry, Start, split_entry
from fgc_mm.comparison.executor import Executor
from fgc_mm.comparison.local_executor import LocalExecutor, visible_devices
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.progress_display import ProgressDisplay
from fgc_mm.comparison.report import write_report
from fgc_mm.comparison.results import read_result, write_result
from fgc_mm.comparison.run import Run
from fgc_mm.comparison.run_scheduler import RunScheduler
from fgc_mm.comparison.slurm_job import take_steps
from fgc_mm.comparison.slurm_options import slurm_options, submitit_executor
from fgc_mm.comparison.slurm_queue import queue_states
from fgc_mm.comparison.stored_results import (
    find_stored_result,
    result_file,
    store_result,
)
from fgc_mm.comparison.study import Study
from fgc_mm.comparison.table import (
    PUBLISHED_FILE,
    check_published_dataset,
    read_published,
    rows_of,
)
from fgc_mm.error_line import print_error_line
from fgc_mm.errors import FGCError
from fgc_mm.exit_status import STOPPED
from fgc_mm.reliability.atomic_file import check_writable
from fgc_mm.reliability.stop_signal import SIGNALS as STOP_SIGNALS
from fgc_mm.reliability.work_dir_lock import WorkDirLock
from fgc_mm.runtime.cpu import usable_cores

SIGNALS = *STOP_SIGNALS, signal.SIGINT


def main(args: argparse.Namespace) -> None:
    """Plan, run, and write."""
    study = study_of(args)
    published = read_published(args.published or PUBLISHED_FILE)
    check_published_dataset(published, study.published_dataset)
    start = slurm_jobs if args.slurm is not None else local_workers
    executor, threads = start(args)
    if args.results is not None:
        check_writable(args.results / 'ROW' / 'seed.json')
    lock = WorkDirLock()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    lock.acquire(args.work_dir)
    runs = plan(study, args.work_dir, args.results)
    comparison = Comparison(
        runs, args.work_dir, published, threads, args.results, study
    )
    comparison.run(executor)
    comparison.report_and_exit()


def local_workers(args: argparse.Namespace) -> tuple[Executor, int]:
    """Processes on this machine, and the number of threads of each."""
    try:
        launcher = shlex.split(args.launcher)
    except ValueError as error:
        raise FGCError(
            f'--launcher {args.launcher!r} is not a command ({error}); '
            'close every quote.'
        ) from error
    devices = [] if launcher else visible_devices()
    jobs = args.jobs or max(len(devices), 1)
    threads = args.threads or max(usable_cores() // jobs, 1)
    return LocalExecutor(jobs, threads, devices, launcher), threads


def slurm_jobs(args: argparse.Namespace) -> tuple[Executor, int]:
    """Slurm jobs, and the number of threads of each.

    Raises:
        FGCError: ``--slurm`` has a wrong parameter, or cannot be used here.
    """
    options = slurm_options(args.slurm)
    executor = submitit_executor(options, args.work_dir / 'slurm')
    if queue_states() is None:
        raise FGCError(
            'squeue does not answer, so the jobs could not be watched; run '
            'it by hand, and this command when it works.'
        )
    # imported here, since it needs submitit, an optional package
    from fgc_mm.comparison.slurm_executor import SlurmExecutor

    threads = args.threads or options.get('cpus_per_task', 1)
    take = partial(take_steps, threads=threads, finish=write_result)
    return SlurmExecutor(executor, args.jobs or sys.maxsize, take), threads


def study_of(args: argparse.Namespace) -> Study:
    """The rows and settings: of a plan file, or of the command line alone.

    Raises:
        FGCError: The plan cannot be read.
    """
    if args.plan is not None:
        study = read_study(args.plan)
    else:
        start = args.pretrain and Start(args.pretrain, args.pretrain_epochs)
        pairs = [split_entry(text) for text in args.configs]
        entries = (Entry(path, what, start=start) for what, path in pairs)
        study = Study('Comparison', tuple(entries))
    ratio = args.pruning_ratio  # may be 0, which is an error later
    return replace(
        study,
        seeds=tuple(args.seeds or study.seeds),
        epochs=args.epochs or study.epochs,
        options=study.options + tuple(args.cfg_options),
        pruning_ratio=study.pruning_ratio if ratio is None else ratio,
        match_macs=args.match_macs or study.match_macs,
        published_dataset=args.published_dataset or study.published_dataset,
    )


@dataclass
class Comparison:
    """Runs a comparison, shows its progress, and writes the report.

    Attributes:
        runs: All runs.
        folder: Folder of the report.
        published: Rows of the file of published numbers.
        threads: Number of threads of each run.
        results_folder: Where the results of finished runs are stored too;
            None: nowhere.
        study: Has the title and the questions of the report.
        results: Results of the finished runs, by name.
        stopped_by: Name of the signal, if one has stopped it.
    """

    runs: list[Run]
    folder: Path
    published: list[dict[str, str]]
    threads: int
    results_folder: Path | None
    study: Study
    results: dict[str, dict] = field(default_factory=dict)
    stopped_by: str | None = None

    def __post_init__(self) -> None:
        self._new_results = False
        self._take_stored()
        self.display = ProgressDisplay(Console(), self.runs)

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
                scheduler.go(self._tick)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def report_and_exit(self) -> None:
        """Show the table; exit with the status of the runs."""
        if self.results:
            self._write()
            self.display.show(rows_of(self._in_order()))
            print(all_answers(self.study, self._in_order()), end='')
            print(f'written: {self.folder}/compare.md, .csv, .png, runs.csv')
        failed = [run for run in self.runs if run.state == 'failed']
        for run in failed:
            line = f'error: {run.name} has failed: {run.reason}'
            print_error_line(line)
        if failed and self.stopped_by is None:
            raise SystemExit(1)
        if len(self.results) < len(self.runs):
            by = f' by {self.stopped_by}' if self.stopped_by else ''
            line = f'stopped{by}: run the same command again to continue'
            print_error_line(line)
            raise SystemExit(STOPPED)

    def _take_stored(self) -> None:
        """Use the stored results of runs that are not in the work dir.

        A run is trained again if another run has to start from its weights.
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
        if self.results_folder is not None:
            stored = find_stored_result(run, self.results_folder)
            if stored is None:
                store_result(run, found, self.results_folder)
            else:  # it was trained again only for its weights
                found = stored
        self.results[run.name] = found

    def _changed(self, run: Run) -> None:
        self.display.changed(run, self.results.get(run.name))
        self._new_results |= run.state == 'done'

    def _tick(self) -> None:
        if self._new_results:  # once for all that have ended since
            self._write()
        self.display.tick()

    def _in_order(self) -> list[dict]:
        rows = [entry.row for entry in self.study.entries]
        # starts that are not rows come first
        place = {row: number for number, row in enumerate(rows)}
        runs = sorted(
            self.runs, key=lambda run: place.get(run.method.name, -1)
        )
        names = [run.name for run in runs]
        return [self.results[name] for name in names if name in self.results]

    def _write(self) -> None:
        self._new_results = False
        command = ['fgc-mm', 'compare', *sys.argv[1:]]
        write_report(
            self.folder, self.runs, self._in_order(), self.published,
            command, self.study,
        )  # fmt: skip
