"""Runs commands in parallel, each with a number of threads and a GPU."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import torch

from .executor import Event
from .run import Run

LINUX = sys.platform == 'linux'


class LocalExecutor:
    """Runs commands in a fixed number of slots.

    Args:
        jobs: Number of slots.
        threads: Threads of each process.
        devices: Names of GPUs, which are assigned to the slots in turn.
        launcher: Words in front of every command, such as ``srun -n1``.
    """

    def __init__(
        self,
        jobs: int,
        threads: int,
        devices: Sequence[str] = (),
        launcher: Sequence[str] = (),
    ) -> None:
        self.threads = threads
        self.devices = devices
        self.launcher = launcher
        self._free = list(range(jobs))
        # process and slot, by name of the run
        self._jobs: dict[str, tuple[subprocess.Popen, int]] = {}
        self._stopping = False

    @property
    def free(self) -> bool:
        """Whether there is a free slot."""
        return bool(self._free)

    @property
    def busy(self) -> bool:
        """Whether a process is running."""
        return bool(self._jobs)

    def start(self, run: Run, step: str, command: list[str]) -> str:
        """Starts a process whose output is appended to the run's log."""
        slot = self._free[0]
        run.log.parent.mkdir(parents=True, exist_ok=True)
        run.log_command(command)
        with run.log.open('a', encoding='utf-8') as output:
            process = subprocess.Popen(
                [*self.launcher, *command],
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only this process, which makes the runs save
                start_new_session=True,
                preexec_fn=_end_with_parent if LINUX else None,
            )
        self._jobs[run.name] = process, self._free.pop(0)
        if self._stopping:  # a signal arrived before it was listed
            process.terminate()
        return step

    def poll(self) -> list[Event]:
        """The processes that have ended since the last call."""
        found = [
            Event(name, code=process.returncode)
            for name, (process, _) in self._jobs.items()
            if process.poll() is not None
        ]
        for event in found:
            self._free.append(self._jobs.pop(event.name)[1])
        self._free.sort()
        return found

    def stop(self) -> None:
        """Signals all processes to save and exit."""
        self._stopping = True
        for process, _ in self._jobs.values():
            process.terminate()

    def _environment(self, slot: int) -> dict[str, str]:
        env = {**os.environ, 'OMP_NUM_THREADS': str(self.threads)}
        if self.devices:
            device = self.devices[slot % len(self.devices)]
            env['CUDA_VISIBLE_DEVICES'] = device
        return env


def visible_devices() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get('CUDA_VISIBLE_DEVICES')
    if not torch.cuda.is_available():
        return []
    if chosen is not None:
        names = [name.strip() for name in chosen.split(',') if name.strip()]
        return names[: torch.cuda.device_count()]  # CUDA stops at a wrong one
    return [str(number) for number in range(torch.cuda.device_count())]


def _end_with_parent() -> None:
    """Lets Linux send SIGTERM when the comparison ends, also by kill -9."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
