"""Some processes have a GPU, one may not join; not a test."""

import json
import os
import sys
from pathlib import Path

import torch

from fgc_mm.errors import FGCError
from fgc_mm.reliability.device_agreement import check_devices


def main():
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    plan = json.loads((folder / 'plan.json').read_text())
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world + plan['missing']),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(plan['port']),
    )
    torch.cuda.is_available = lambda: plan['gpus'][rank]
    said = ''
    try:
        check_devices(plan['seconds'])
    except FGCError as error:
        said = str(error)
    torch.save(said, folder / f'{rank}.pt')


if __name__ == '__main__':
    main()
