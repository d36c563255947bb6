"""The rank of this process, and whether it reports errors."""

from __future__ import annotations

import os

from torch import distributed as dist

_FAILED = 'fgc_mm/failed'


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

    Before the process group exists, every process has the same error (in the
    config, a missing file), and rank 0 reports it. Afterwards the first
    process that fails reports its error: the others fail only because that
    one has exited.
    """
    if not dist.is_initialized():
        return started_rank() == 0
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(_FAILED, 1) == 1
    except Exception:  # the host of the store has failed and reported
        return dist.get_rank() == 0
