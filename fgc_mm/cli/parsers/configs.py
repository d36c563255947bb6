"""Lists the configs and plans that come with the package."""

from __future__ import annotations

import argparse


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'pattern', nargs='?', default='*', help='such as "fgc_*digits*"'
    )
    return parser.parse_args()
