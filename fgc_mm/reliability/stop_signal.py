"""Stopping on SIGTERM and SIGUSR1 (Slurm's warning before a time limit)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import distributed as dist
from torch.utils.data import DataLoader

from fgc_mm.reliability.timeout import DEFAULT_TIMEOUT

# Windows has no SIGUSR1
WARNING: signal.Signals | None = getattr(signal, 'SIGUSR1', None)
SIGNALS = tuple(x for x in (signal.SIGTERM, WARNING) if x is not None)


class StopSignal:
    """Records a signal, and lets all ranks stop in the same step."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._old: dict[int, Any] = {}  # handlers
        self._group: dist.ProcessGroup | None = None
        # the all-reduce of the last step and its result
        self._pending: tuple[dist.Work, torch.Tensor] | None = None

    def install(self, seconds: float = DEFAULT_TIMEOUT) -> None:
        """Installs the handlers; all ranks call it and wait for each other."""
        if get_world_size() > 1 and self._group is None:
            # on the CPU, so that the all-reduce does not wait for a GPU
            self._group = dist.new_group(
                backend='gloo', timeout=timedelta(seconds=seconds)
            )
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._old[number] = signal.signal(number, self._record)

    def remove(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def any_rank(self) -> bool:
        """Whether any rank has received a signal; the same on all ranks.

        With several ranks, this is the state at the previous call: its
        all-reduce has finished by now, so no step waits for the slowest rank.
        """
        if self._group is None:
            return self.name is not None
        stop = self._last_result()
        flag = torch.tensor([self.name is not None], dtype=torch.uint8)
        work = dist.all_reduce(
            flag, dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._pending = work, flag
        return stop

    def _last_result(self) -> bool:
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        work, flag = pending
        work.wait()
        return bool(flag)

    def wait_for_ranks(self) -> None:
        """Waits for all ranks; signals are ignored from now on.

        A launcher ends the other ranks as soon as one has exited, and the
        rank that writes the checkpoint takes longest.
        """
        if self._group is None:
            self.remove()
            return
        for number in self._old:
            signal.signal(number, signal.SIG_IGN)
        self._last_result()
        dist.barrier(group=self._group)

    def _record(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name


def keep_workers_alive(loader: DataLoader) -> None:
    """Lets the loader's workers ignore signals that the whole job receives.

    Slurm signals every process of a job, but without its workers a process
    cannot finish the current step. A worker ends only if its parent process
    signals it.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(start: Callable[[int], None] | None, worker: int) -> None:
    if WARNING is not None:
        signal.signal(WARNING, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # neither on macOS nor on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()
    if start is not None:
        start(worker)


def _wait_for_parent() -> None:
    """Ends this process on a SIGTERM of its parent, but not of others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
