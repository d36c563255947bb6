"""Removes the training state from a checkpoint: fgc-mm publish IN OUT."""

from argparse import ArgumentParser


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', help='checkpoint of a training run')
    parser.add_argument(
        'target', help='file to write; -XXXXXXXX.pth is appended'
    )
