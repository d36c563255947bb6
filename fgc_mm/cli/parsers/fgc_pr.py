"""Converts a checkpoint of the published FGC code: weights, gates, banks."""

from argparse import ArgumentParser
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', help='checkpoint of the published code')
    parser.add_argument('target', type=Path, help='file to write')
