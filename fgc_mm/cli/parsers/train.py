"""Trains a model: fgc-mm train CONFIG [options]."""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_shared_arguments


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a value, from the latest '
        'one in the work dir',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        metavar='N',
        help='number of epochs; learning rates, scheduled numbers, warm-up '
        'and intervals of the config are scaled in proportion',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision; on a CPU in bfloat16',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='train without validation'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the actual batch size',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='restart the workers of the data loaders in every epoch',
    )
    add_shared_arguments(parser)
