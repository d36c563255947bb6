"""Updates tables and figures in documents from stored results.

    fgc-mm update-results docs/comparison.md README.md

A block is between `<!-- results: KIND of PLAN in FOLDER -->` and
`<!-- end of results -->`. KIND is table, questions, answers, costs, progress
or figure; PLAN is a plan of fgc-mm compare (or several, separated by commas)
and FOLDER that of its --results, both relative to the current folder. The
block of a figure (error over MACs, with the threshold sweeps) contains its
image, ![TEXT](FILE.png), relative to the document; FILE.png and FILE.svg are
written. A metafile (.yml) is updated from the results that its comments name
in lines "# results of PLAN in FOLDER". With --check nothing is written; the
exit status is 1 if a document or a figure does not match the results.
"""

from argparse import ArgumentParser
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'documents',
        nargs='+',
        type=Path,
        metavar='DOCUMENT',
        help='Markdown or metafile to update',
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing, only compare'
    )
