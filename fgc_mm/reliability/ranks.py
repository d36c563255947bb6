"""Which of the processes of a run this one is."""

from __future__ import annotations

import os

from torch import distributed as dist

_FAILED = 'fgc_mm/failed'


def started_rank() -> int:
    """The rank that torchrun, srun or mpirun gave this process, else 0."""
    env = os.environ
    # RANK alone proves nothing: some clusters set it in every shell.
    if 'TORCHELASTIC_RUN_ID' in env:
        return int(env.get('RANK', 0))
    for name in ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if name in env:
            return int(env[name])
    return 0


def first_to_fail() -> bool:
    """Whether this process is to report an error, for all of its siblings.

    Before the processes have met, an error is everyone's (the same config,
    the same missing file), and rank 0 speaks. Later the first one does: the
    others then fail only because it is gone.
    """
    if not dist.is_initialized():
        return started_rank() == 0
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(_FAILED, 1) == 1
    except Exception:  # the process that held the store has failed, and spoke
        return dist.get_rank() == 0
