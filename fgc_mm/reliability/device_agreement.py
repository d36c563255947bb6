"""Checks that either all processes of a run have a GPU or none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import distributed as dist

from fgc_mm.errors import FGCError

MAX_LISTED = 8  # ranks named in an error
READ_SECONDS = 10.0  # for which rank 0 waits until the others have read
# keeps the stores alive: without that of rank 0 no rank can read
_stores: list[dist.Store] = []


def check_devices(seconds: float) -> None:
    """Raises an error if some processes see a GPU and others do not.

    They would choose different backends, gloo and NCCL, and wait for each
    other until the timeout. So before they choose, each process writes into
    the store of the rendezvous whether it sees one, and waits ``seconds``
    for the others.

    Raises:
        FGCError: Some see a GPU and others do not, or some did not start.
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
            f'{seconds:g} seconds (env_cfg.dist_cfg.timeout); see the output '
            'of the launcher for the others.'
        ) from error
    seen = [store.get(key).decode().split(maxsplit=1) for key in keys]
    without = [r for r, (kind, _) in enumerate(seen) if kind == 'cpu']
    if 0 < len(without) < size:
        _wait_until_read(store, f'{run}/read', rank, size)
        hosts = ', '.join(sorted({seen[r][1] for r in without}))
        raise FGCError(
            f'no GPU is visible to {_ranks(without)} (on {hosts}), but the '
            'other processes see one: either all processes of a run need a '
            'GPU or none; repair the driver there, leave that machine out, '
            'or run all on the CPU with CUDA_VISIBLE_DEVICES=-1.'
        )


def _wait_until_read(
    store: dist.Store, key: str, rank: int, size: int
) -> None:
    """Rank 0, which hosts the store, waits until the others have read."""
    count = store.add(f'fgc_mm/devices/{key}', 1)
    end = time.monotonic() + READ_SECONDS
    while rank == 0 and count < size and time.monotonic() < end:
        time.sleep(0.1)
        count = store.add(f'fgc_mm/devices/{key}', 0)


def _ranks(ranks: Sequence[int]) -> str:
    names = [str(rank) for rank in ranks[:MAX_LISTED]]
    if len(ranks) > MAX_LISTED:
        names.append(f'{len(ranks) - MAX_LISTED} more')
    *first, last = names
    return f'ranks {", ".join(first)} and {last}' if first else f'rank {last}'
