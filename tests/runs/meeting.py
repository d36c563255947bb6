"""How the processes of a test connect; not a test."""

import sys
from pathlib import Path

from torch import distributed as dist


def meet():
    """Joins the others over gloo: the test's folder, rank, world size."""
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder / "meet"}',
        rank=rank,
        world_size=world,
    )
    return folder, rank, world
