"""Lists the configs and plans that come with the package."""

from argparse import ArgumentParser


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'pattern',
        nargs='?',
        default='*',
        help='part of a name, or a pattern such as "fgc_*digits*"',
    )
