"""Removes the training state from a checkpoint: publish_model.py IN OUT."""

from __future__ import annotations

import argparse


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description='Publish a checkpoint')
    parser.add_argument('source', help='checkpoint of a training run')
    parser.add_argument(
        'target', help='where to write it; -XXXXXXXX.pth is appended'
    )
    return parser.parse_args()
