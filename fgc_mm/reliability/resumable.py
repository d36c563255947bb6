"""Whether a checkpoint has all that a resumed run needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint import read_checkpoint

# the entries of mmengine's checkpoint that hold the state of training
NEEDED = 'meta', 'message_hub', 'optimizer'
SCHEDULERS = 'param_schedulers'


def check_resumable(path: str | Path, scheduled: bool = False) -> None:
    """Raises FGCError unless training can be continued from this file.

    Weights alone are no training state: published and converted ones, and
    the best checkpoint of a run, which mmengine saves without optimizer and
    schedulers. It would resume at the first learning rate.

    Args:
        path: The file.
        scheduled: Whether the run that resumes has parameter schedulers.
    """
    check_training_state(read_checkpoint(path), str(path), scheduled)


def check_training_state(
    checkpoint: Mapping[str, Any], name: str, scheduled: bool = False
) -> None:
    """The same for a checkpoint that is read already.

    Args:
        checkpoint: What the file holds.
        name: Of the file, for the message.
        scheduled: Whether the run that resumes has parameter schedulers.
    """
    needed = {*NEEDED, *([SCHEDULERS] if scheduled else [])}
    missing = sorted(needed - checkpoint.keys())
    if missing:
        raise FGCError(
            f'{name} has no {" and no ".join(missing)}: a run resumes from '
            'a checkpoint with the whole state of training, which the best '
            'one of a run and published weights are not; give the file of '
            'the last epoch (--resume without a value finds it), or take '
            'the weights alone with load_from instead of --resume.'
        )


def check_schedulers(
    checkpoint: Mapping[str, Any], schedulers: object
) -> None:
    """Raises FGCError where the checkpoint has another number of schedulers.

    mmengine restores as many as both have, and starts the others anew.

    Args:
        checkpoint: What the file holds.
        schedulers: The run's own; only a list is compared.
    """
    saved = checkpoint.get(SCHEDULERS)
    if (
        isinstance(saved, Sequence)
        and isinstance(schedulers, Sequence)
        and len(saved) != len(schedulers)
    ):
        raise FGCError(
            f'the checkpoint has {len(saved)} parameter schedulers and the '
            f'config {len(schedulers)}: a run resumes the schedule that it '
            'began with; set param_scheduler as it was, or take the weights '
            'alone with load_from instead of --resume.'
        )
