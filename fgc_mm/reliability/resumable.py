"""Checks that a checkpoint contains everything that resuming needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint import read_checkpoint

# entries of mmengine's checkpoint with the training state
NEEDED = 'meta', 'message_hub', 'optimizer'
SCHEDULERS = 'param_schedulers'


def check_resumable(path: str | Path, scheduled: bool = False) -> None:
    """Raises FGCError unless training can be continued from this file.

    Published and converted weights, and the best checkpoint of a run (which
    mmengine saves without optimizer and schedulers), do not contain the
    training state: a run would resume with the first learning rate.

    Args:
        path: The file.
        scheduled: Whether the run that resumes has parameter schedulers.
    """
    check_training_state(read_checkpoint(path), str(path), scheduled)


def check_training_state(
    checkpoint: Mapping[str, Any], name: str, scheduled: bool = False
) -> None:
    """Like :func:`check_resumable`, for the contents of a checkpoint.

    Args:
        checkpoint: Contents of the file.
        name: Of the file, for the message.
        scheduled: Whether the run that resumes has parameter schedulers.
    """
    needed = {*NEEDED, *([SCHEDULERS] if scheduled else [])}
    missing = sorted(needed - checkpoint.keys())
    if missing:
        raise FGCError(
            f'{name} has no {" and no ".join(missing)}: a run resumes from '
            'a checkpoint with the complete training state, which the best '
            'checkpoint of a run and published weights do not have; give '
            'the file of the last epoch (--resume without a value finds '
            'it), or load only the weights with load_from instead of '
            '--resume.'
        )


def check_schedulers(
    checkpoint: Mapping[str, Any], schedulers: object
) -> None:
    """Raises FGCError if the checkpoint has another number of schedulers.

    mmengine would restore the first ones and start the others anew.

    Args:
        checkpoint: Contents of the file.
        schedulers: Those of the run; only a list is compared.
    """
    saved = checkpoint.get(SCHEDULERS)
    if (
        isinstance(saved, Sequence)
        and isinstance(schedulers, Sequence)
        and len(saved) != len(schedulers)
    ):
        raise FGCError(
            f'the checkpoint has {len(saved)} parameter schedulers and the '
            f'config {len(schedulers)}: a resumed run needs the same '
            'schedule; set param_scheduler as in the original run, or load '
            'only the weights with load_from instead of --resume.'
        )
