"""MACs of a config before training: dense, of gates, and expected."""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_config


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser, 'config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        help='height and width of the image (one number for both); by '
        "default the training pipeline's crop",
    )
    parser.add_argument(
        '--keep-ratio',
        type=float,
        nargs='+',
        default=[0.75, 0.5, 0.25],
        help='fractions of open channels for which to compute the MACs '
        '(0.75 0.5 0.25)',
    )
