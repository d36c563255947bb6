"""Makes the results in documents anew, from the kept ones: tables, figures.

    fgc-mm update-results docs/comparison.md README.md

A block stands between `<!-- results: KIND of PLAN in FOLDER -->` and
`<!-- end of results -->`. KIND is table, questions, costs, progress or
figure; PLAN is a plan of fgc-mm compare (several with commas between them)
and FOLDER what its --results has kept, both relative to the current folder.
A figure (error over MACs, with the threshold sweeps) names its image in the
block, ![TEXT](FILE.png), relative to the document; FILE.png and FILE.svg are
written. With --check nothing is written; the exit status is 1 if a document
or a figure is not what the results say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fgc_mm.cli.arguments import text_parser
from fgc_mm.comparison.kept_blocks import figures, update_blocks
from fgc_mm.comparison.kept_figure import KeptFigure
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically


def main() -> None:
    """Update each document, or compare."""
    args = parse_args()
    stale = [path for path in args.documents if update(path, args.check)]
    if args.check and stale:
        names = ', '.join(map(str, stale))
        print(f'not what the results say: {names}', file=sys.stderr)
        raise SystemExit(1)


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = text_parser(__doc__)
    parser.add_argument('documents', nargs='+', type=Path, metavar='DOCUMENT')
    parser.add_argument(
        '--check', action='store_true', help='write nothing, only compare'
    )
    return parser.parse_args()


def update(path: Path, check: bool) -> bool:
    """Whether a document was not up to date; it is written unless ``check``.

    Raises:
        FGCError: It is missing, or see :func:`update_blocks`.
    """
    if not path.is_file():
        raise FGCError(f'{path} is not a file; give a Markdown document.')
    old = path.read_text()
    new = update_blocks(old, Path())
    stale = [f for f in drawn(new, path.parent) if not f.is_up_to_date()]
    if not check:
        for figure in stale:
            figure.write()
            print(f'updated: {figure.file} and .svg')
    if new != old and not check:
        write_atomically(new.encode(), path)
        print(f'updated: {path}')
    return new != old or bool(stale)


def drawn(text: str, folder: Path) -> list[KeptFigure]:
    """The figures of a document."""
    return [
        KeptFigure(folder / name, study, results)
        for name, (study, results) in figures(text, Path()).items()
    ]
