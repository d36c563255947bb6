"""torchrun with the exit code of its processes and without its error report.

A process that fails prints one line, to which torchrun would add some forty
lines and its own traceback. For a process that was killed, this module prints
its rank and the signal. The arguments are those of torchrun.
"""

import logging
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    from torch.distributed.elastic.multiprocessing import api, errors
    from torch.distributed.run import main
except ImportError as error:
    sys.exit(f'error: {error}; run `pip install torch torchvision`.')

from fgc_mm.error_line import print_error_line
from fgc_mm.exit_status import BAD_INPUT, STOP_FILE, STOPPED

# those of torchrun, and Slurm's SIGUSR1, which would end torchrun
SIGNALS = 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1'


def run() -> int:
    """Runs torchrun; returns the exit code of the first process to fail."""
    logging.getLogger('torch.distributed').setLevel(logging.CRITICAL)
    logging.disable(logging.ERROR)
    sys.argv.insert(1, f'--signals-to-handle={SIGNALS}')
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
        # the processes received the signal too, and had 30 seconds
        if stopped.exists():
            return STOPPED
        return 128 + error.sigval
    except RuntimeError as error:  # torch's DistNetworkError
        taken = re.search(r'port: (\d+).*EADDRINUSE', str(error))
        if taken is None:
            raise
        print_error_line(
            f'error: port {taken[1]} of this machine is in use, but the '
            'processes of a run need a free port to connect; set PORT to '
            'another one, or leave it out on a single machine.',
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
    return 0


def _first_exit_code(error: errors.ChildFailedError) -> int:
    """Exit code of the first process to fail; prints a killed one."""
    rank, failure = error.get_first_failure()
    if failure.exitcode > 0:
        return failure.exitcode
    print_error_line(
        f'error: rank {rank} was killed by {failure.signal_name()}, so '
        'all ranks have ended; check whether its machine had enough memory '
        '(the usual cause of SIGKILL), and continue with --resume.',
    )
    return 128 - failure.exitcode  # as in a shell
