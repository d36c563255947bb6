"""One of three gloo processes, the second of which hangs; not a test."""

import time
from datetime import timedelta

import torch
from meeting import meet
from torch import distributed as dist

from fgc_mm.reliability.missing_ranks import (
    describe_missing,
    find_missing_ranks,
)


def missed(group):
    """The error of a rank if another has not joined a collective."""
    try:
        dist.all_reduce(torch.ones(1), group=group)
    except RuntimeError as error:
        lost = find_missing_ranks(error, seconds=3)
        return dict(lost=lost, said=describe_missing(lost))
    return None


def main():
    folder, rank, _ = meet()
    group = dist.new_group(timeout=timedelta(seconds=1))
    others = [folder / f'{other}.pt' for other in (0, 2)]
    if rank == 1:
        while not all(file.exists() for file in others):
            time.sleep(0.05)
    result = None if rank == 1 else missed(group)
    aside = folder / f'{rank}.part'
    torch.save(result, aside)
    aside.replace(folder / f'{rank}.pt')
    while not all(file.exists() for file in others):  # the store is shared
        time.sleep(0.05)


if __name__ == '__main__':
    main()
