"""The rank of this process, and whether it reports errors."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from torch import distributed as dist

WAIT_FOR_RANK_0 = 10.0  # seconds


def started_rank() -> int:
    """The rank that torchrun, srun or mpirun set for this process, else 0."""
    env = os.environ
    # RANK alone is not enough: some clusters set it in every shell
    if 'TORCHELASTIC_RUN_ID' in env:
        return int(env.get('RANK', 0))
    for name in ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if name in env:
            return int(env[name])
    return 0


def reports_errors() -> bool:
    """Whether this process reports an error, on behalf of all processes.

    The first process that fails does: the others are ended, or fail because
    that one has exited. Before the process group exists, the processes of
    torchrun count in torchrun's store. Those of Slurm and MPI have none: rank
    0 reports, and the others wait for being ended with it; one that is not
    has an error of its own and reports that.
    """
    try:
        store = _store()
        if store is not None:
            return store.add(_key(), 1) == 1
    except Exception:  # the host of the store has failed and reported
        return started_rank() == 0
    if started_rank() > 0:
        time.sleep(WAIT_FOR_RANK_0)
    return True


def _store() -> dist.Store | None:
    if dist.is_initialized():
        return dist.distributed_c10d._get_default_store()
    env = os.environ
    if env.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    return dist.TCPStore(
        env['MASTER_ADDR'],
        int(env['MASTER_PORT']),
        is_master=False,
        timeout=timedelta(seconds=WAIT_FOR_RANK_0),
    )


def _key() -> str:
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    return f'fgc_mm/failed/{attempt}'
