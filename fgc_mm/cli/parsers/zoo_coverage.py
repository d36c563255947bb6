"""Tests gates on every backbone that the installed mmpretrain lists.

Wraps each with sites='auto', tests it on a small image, and writes a table:
with all gates open the output must equal that of the dense network bit for
bit, closed channels must have no influence, and the MACs must be those of the
network from which torch-pruning has removed the closed channels. Each backbone
has its own process, so a crash or a timeout gives a row too. Rows are stored
in a file, so a second run continues after an interruption.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_coverage


def add_arguments(parser: ArgumentParser) -> None:
    add_coverage(parser, 'zoo_coverage', 180)
    parser.add_argument('--pattern', help='models to test, e.g. "resnet*"')
