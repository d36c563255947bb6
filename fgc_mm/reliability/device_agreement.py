"""Do all processes of a run have a GPU, or none of them?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import distributed as dist

from fgc_mm.errors import FGCError

MOST = 8  # ranks that a sentence names
GRACE = 10.0  # seconds for the others to read what all have said
_stores: list[dist.Store] = []  # one that rank 0 gives up is gone for all


def check_devices(seconds: float) -> None:
    """Refuses processes of which some see a GPU and others none.

    They would choose different backends, gloo and NCCL, and wait for each
    other until the timeout. So they say what they see in the store at which
    they meet, before they choose.

    Args:
        seconds: How long a process is waited for.

    Raises:
        FGCError: Some see a GPU and others none, or some did not start.
    """
    timeout = timedelta(seconds=seconds)
    size = int(os.environ['WORLD_SIZE'])
    run = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    keys = [f'fgc_mm/devices/{run}/{rank}' for rank in range(size)]
    kind = 'gpu' if torch.cuda.is_available() else 'cpu'
    try:
        store, rank, _ = next(dist.rendezvous('env://', timeout=timeout))
        _stores.append(store)
        store.set(keys[rank], f'{kind} {socket.gethostname()}')
        store.wait(keys, timeout)
    except dist.DistStoreError as error:
        raise FGCError(
            f'not all of the {size} processes have started within '
            f'{seconds:g} seconds (env_cfg.dist_cfg.timeout); see what the '
            'launcher says of the others.'
        ) from error
    seen = [store.get(key).decode().split(maxsplit=1) for key in keys]
    without = [r for r, (kind, _) in enumerate(seen) if kind == 'cpu']
    if 0 < len(without) < size:
        _let_all_read(store, f'{run}/read', rank, size)
        hosts = ', '.join(sorted({seen[r][1] for r in without}))
        raise FGCError(
            f'no GPU is visible to {_ranks(without)} (on {hosts}), but the '
            'other processes see one: a run needs one for each or for none; '
            'mend the driver there, leave that machine out, or run all on '
            'the CPU with CUDA_VISIBLE_DEVICES=-1.'
        )


def _let_all_read(store: dist.Store, key: str, rank: int, size: int) -> None:
    """Rank 0, which holds the store, is the last to end."""
    count = store.add(f'fgc_mm/devices/{key}', 1)
    end = time.monotonic() + GRACE
    while rank == 0 and count < size and time.monotonic() < end:
        time.sleep(0.1)
        count = store.add(f'fgc_mm/devices/{key}', 0)


def _ranks(ranks: Sequence[int]) -> str:
    names = [str(rank) for rank in ranks[:MOST]]
    if len(ranks) > MOST:
        names.append(f'{len(ranks) - MOST} more')
    *first, last = names
    return f'ranks {", ".join(first)} and {last}' if first else f'rank {last}'
