"""torchrun that ends as its processes end, without a report of its own.

A process that fails has said why in one line; torchrun would add some forty,
and a traceback of itself. One that was killed could not say anything: we name
it. The arguments are those of torchrun.
"""

from __future__ import annotations

import logging
import sys

try:
    from torch.distributed.elastic.multiprocessing import api, errors
    from torch.distributed.run import main
except ImportError as error:
    sys.exit(f'error: {error}; run `pip install torch torchvision`.')


def run() -> int:
    """Runs torchrun; its exit code is that of the first process to fail."""
    logging.getLogger('torch.distributed').setLevel(logging.CRITICAL)
    logging.disable(logging.ERROR)
    try:
        main()
    except errors.ChildFailedError as error:
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
    except api.SignalException as error:
        return 128 + error.sigval
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(run())
