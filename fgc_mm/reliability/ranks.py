"""The rank of this process, and whether it reports errors."""

from __future__ import annotations

import os
from pathlib import Path
from time import sleep

from torch import distributed as dist

from fgc_mm.exit_status import STOP_FILE

LAUNCHERS = 'pytorch', 'slurm', 'mpi'
TIME_TO_REPORT = 2.0  # seconds
_FAILED = 'fgc_mm/failed'
_alone = False


def set_launcher(name: str) -> None:
    """Tells how the processes of this command were launched, if at all.

    ``srun`` may also start several commands that know nothing of each other.
    """
    global _alone
    _alone = name not in LAUNCHERS


def started_rank() -> int:
    """The rank that torchrun, srun or mpirun set for this process, else 0."""
    env = os.environ
    # RANK alone is not enough: some clusters set it in every shell
    if 'TORCHELASTIC_RUN_ID' in env:
        return int(env.get('RANK', 0))
    if _alone:
        return 0
    for name in ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if name in env:
            return int(env[name])
    return 0


def reports_errors() -> bool:
    """Whether this process reports an error on behalf of all processes.

    The first process that fails reports, since the others are ended, or fail
    because it has exited. If the process group exists, its store says which
    is the first. Before, it is the first process of this machine with our
    torchrun, and rank 0 with other launchers. In the other processes this
    function returns after two seconds, because as soon as one exits, a
    launcher may end the process that reports.
    """
    if dist.is_initialized():
        try:
            store = dist.distributed_c10d._get_default_store()
            return store.add(_FAILED, 1) == 1
        except Exception:  # the host of the store has failed and reported
            return dist.get_rank() == 0
    reports = _reports_before_group()
    if not reports:
        sleep(TIME_TO_REPORT)
    return reports


def _reports_before_group() -> bool:
    stop_file = os.environ.get(STOP_FILE)  # in a folder of our torchrun
    if stop_file is None:
        return started_rank() == 0
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    try:
        Path(stop_file).with_name(f'failed_{attempt}').touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # torchrun has ended, and its folder is gone
        return started_rank() == 0
    return True
