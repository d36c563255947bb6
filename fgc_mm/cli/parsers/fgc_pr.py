"""Converts a checkpoint of the published FGC code: weights, gates, banks."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of the published code')
    parser.add_argument('target', type=Path, help='where to write ours')
    return parser.parse_args()
