"""Removes the training state from a checkpoint: fgc-mm publish IN OUT."""

from argparse import ArgumentParser


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', help='checkpoint of a training run')
    parser.add_argument(
        'target', help='where to write it; -XXXXXXXX.pth is appended'
    )
