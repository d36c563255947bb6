"""torchrun that ends as its processes end, without a report of its own.

A process that fails has said why in one line; torchrun would add some forty,
and a traceback of itself. One that was killed could not say anything: we name
it. The arguments are those of torchrun.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    from torch.distributed.elastic.multiprocessing import api, errors
    from torch.distributed.run import get_args_parser, main
except ImportError as error:
    sys.exit(f'error: {error}; run `pip install torch torchvision`.')

from fgc_mm.exit_status import BAD_INPUT, STOP_FILE, STOPPED

# torchrun's own, and Slurm's warning, which would end it without a word
SIGNALS = 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1'


def run() -> int:
    """Runs torchrun; its exit code is that of the first process to fail."""
    logging.getLogger('torch.distributed').setLevel(logging.CRITICAL)
    logging.disable(logging.ERROR)
    if '--signals-to-handle' in get_args_parser().format_usage():
        known = [name for name in SIGNALS if hasattr(signal, name)]
        sys.argv.insert(1, f'--signals-to-handle={",".join(known)}')
    with TemporaryDirectory() as folder:
        stopped = Path(folder, 'stopped')
        os.environ[STOP_FILE] = str(stopped)  # for the processes
        try:
            return _exit_code(stopped)
        finally:
            del os.environ[STOP_FILE]


def _exit_code(stopped: Path) -> int:
    """Runs torchrun; ``stopped`` exists if a process saved and stopped."""
    try:
        main()
    except errors.ChildFailedError as error:
        return _first_exit_code(error)
    except api.SignalException as error:
        # the processes had the signal too, and 30 seconds
        if stopped.exists():
            return STOPPED
        return 128 + error.sigval
    except RuntimeError as error:  # torch's DistNetworkError
        if 'EADDRINUSE' not in str(error):
            raise
        print(
            f'error: {_port()} of this machine is in use: the processes of '
            'a run meet at a port that is free; set PORT to another one, or '
            'leave it out where there is one machine.',
            file=sys.stderr,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
    return 0


def _first_exit_code(error: errors.ChildFailedError) -> int:
    """That of the first process to fail; names the one that was killed."""
    rank, failure = error.get_first_failure()
    if failure.exitcode > 0:
        return failure.exitcode
    print(
        f'error: rank {rank} was killed by {failure.signal_name()}, so '
        'all ranks have ended; see whether its machine had enough memory '
        '(SIGKILL is often that), and go on with --resume.',
        file=sys.stderr,
    )
    return 128 - failure.exitcode  # as a shell says


def _port() -> str:
    found = [x for x in sys.argv if x.startswith('--master_port=')]
    return f'port {found[-1].partition("=")[2]}' if found else 'the port'
