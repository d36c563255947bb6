"""Being told to stop: SIGTERM, and Slurm's warning SIGUSR1."""

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

# Windows has no SIGUSR1
WARNING: signal.Signals | None = getattr(signal, 'SIGUSR1', None)
SIGNALS = tuple(x for x in (signal.SIGTERM, WARNING) if x is not None)


class StopSignal:
    """Remembers a signal, and finds the moment at which all ranks stop."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._old: dict[int, Any] = {}  # handlers
        self._group: dist.ProcessGroup | None = None
        # the question of the step before: what waits for it, and the answer
        self._asked: tuple[dist.Work, torch.Tensor] | None = None

    def install(self, seconds: float = 1800) -> None:
        """Catches the signals from now on (all ranks call it).

        Args:
            seconds: How long the ranks wait for each other.
        """
        if get_world_size() > 1 and self._group is None:
            # on the CPU, so that asking does not wait for a GPU
            self._group = dist.new_group(
                backend='gloo', timeout=timedelta(seconds=seconds)
            )
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._old[number] = signal.signal(number, self._note)

    def remove(self) -> None:
        """Gives the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def agreed(self) -> bool:
        """Whether any rank was told to stop; all ranks get one answer.

        Of several ranks, the answer to the question of the call before: no
        rank waits in every step until the slowest has come.
        """
        if self._group is None:
            return self.name is not None
        answer = self._answer()
        flag = torch.tensor([self.name is not None], dtype=torch.uint8)
        work = dist.all_reduce(
            flag, dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._asked = work, flag
        return answer

    def _answer(self) -> bool:
        asked, self._asked = self._asked, None
        if asked is None:
            return False
        work, flag = asked
        work.wait()
        return bool(flag)

    def leave(self) -> None:
        """Waits for all ranks, none of which a signal shall end any more.

        A launcher ends the others as soon as one has left, and the one that
        writes the checkpoint is the last.
        """
        if self._group is None:
            self.remove()
            return
        for number in self._old:
            signal.signal(number, signal.SIG_IGN)
        self._answer()
        dist.barrier(group=self._group)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name


def outlive_signals(loader: DataLoader) -> None:
    """Lets the loader's workers live on when the whole job is signalled.

    Slurm signals every process of a job, and a step without its workers
    cannot be finished. A worker then ends only when its owner says so.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(start: Callable[[int], None] | None, worker: int) -> None:
    if WARNING is not None:
        signal.signal(WARNING, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # neither on macOS nor on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_owner, daemon=True).start()
    if start is not None:
        start(worker)


def _obey_owner() -> None:
    """Ends this process on a SIGTERM of its parent, and on no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
