"""One of two gloo processes, of which the first is signalled; not a test."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import distributed as dist

from fgc_mm.engine.stop_signal import StopSignal


def main():
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder / "meet"}',
        rank=rank,
        world_size=world,
    )
    stop, saved = StopSignal(), folder / 'saved'
    stop.install(seconds=60)
    said = [stop.agreed()]
    if rank == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        # as a launcher does while the other one still writes
        later = (os.getpid(), signal.SIGTERM)
        threading.Timer(0.3, os.kill, later).start()
    said.append(stop.agreed())
    if rank == 1:
        time.sleep(1)
        saved.touch()
    stop.leave()
    result = dict(said=said, name=stop.name, saved=saved.exists())
    torch.save(result, folder / f'{rank}.pt')


if __name__ == '__main__':
    main()
