"""Removes the training state from a checkpoint: fgc-mm publish IN OUT."""

import argparse
import hashlib
import io
from pathlib import Path

import torch

from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.reliability.checkpoint_reader import Checkpoint, read_checkpoint

KEPT = 'meta', 'state_dict'


def main(args: argparse.Namespace) -> None:
    """Reads the arguments, and publishes."""
    print(publish(read_checkpoint(args.source), args.source, args.target))


def publish(checkpoint: Checkpoint, source: str, target: str) -> Path:
    """Writes only the weights and the metadata of a checkpoint.

    Optimizer, schedulers, logs, memory banks and random states are removed.

    Returns:
        The file: ``target`` with the first 8 digits of its SHA-256.
    """
    if 'state_dict' not in checkpoint:
        raise FGCError(
            f'{source} has no state_dict: publishing removes the training '
            'state of a checkpoint; give the checkpoint of a training run.'
        )
    kept = {key: checkpoint[key] for key in KEPT if key in checkpoint}
    with io.BytesIO() as stream:
        torch.save(kept, stream)
        content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = Path(target)
    if path.name in ('', '..'):
        raise FGCError(
            f'{target} is a folder, but one file is written; give its name '
            'too.'
        )
    path = path.with_name(f'{path.name.removesuffix(".pth")}-{digest}.pth')
    write_atomically(content, path)
    return path
