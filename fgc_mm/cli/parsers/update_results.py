"""Updates tables and figures in documents from stored results.

    fgc-mm update-results docs/comparison.md README.md

A block is between `<!-- results: KIND of PLAN in FOLDER -->` and
`<!-- end of results -->`. KIND is table, questions, costs, progress or
figure; PLAN is a plan of fgc-mm compare (several with commas between them)
and FOLDER what its --results has kept, both relative to the current folder.
A figure (error over MACs, with the threshold sweeps) names its image in the
block, ![TEXT](FILE.png), relative to the document; FILE.png and FILE.svg are
written. A metafile (.yml) is made from the results that its comments name, a
line "# results of PLAN in FOLDER" for each. With --check nothing is written;
the exit status is 1 if a document or a figure is not what the results say.
"""

from argparse import ArgumentParser
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('documents', nargs='+', type=Path, metavar='DOCUMENT')
    parser.add_argument(
        '--check', action='store_true', help='write nothing, only compare'
    )
