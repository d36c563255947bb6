"""One of two gloo processes, of which the first is signalled; not a test."""

import os
import signal
import threading
import time

import torch
from meeting import meet

from fgc_mm.reliability.stop_signal import StopSignal


def main():
    folder, rank, _ = meet()
    stop, saved = StopSignal(), folder / 'saved'
    stop.install(seconds=60)
    said = [stop.any_rank()]
    if rank == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        # as a launcher does while the other one still writes
        later = (os.getpid(), signal.SIGTERM)
        threading.Timer(0.3, os.kill, later).start()
    said += [stop.any_rank(), stop.any_rank()]  # a step later
    if rank == 1:
        time.sleep(1)
        saved.touch()
    stop.wait_for_ranks()
    result = dict(said=said, name=stop.name, saved=saved.exists())
    torch.save(result, folder / f'{rank}.pt')


if __name__ == '__main__':
    main()
