"""Updates tables and figures in documents from stored results."""

import argparse
import sys
from pathlib import Path

from fgc_mm.comparison.documents.blocks import figures, update_blocks
from fgc_mm.comparison.documents.metafile import SUFFIXES, update_metafile
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically


def main(args: argparse.Namespace) -> None:
    """Update each document, or compare."""
    stale = [path for path in args.documents if update(path, args.check)]
    if args.check and stale:
        names = ', '.join(map(str, stale))
        print(f'not up to date: {names}', file=sys.stderr)
        raise SystemExit(1)


def update(path: Path, check: bool) -> bool:
    """Updates a document, unless ``check``; whether it was out of date.

    Raises:
        FGCError: It is missing, or an error of :func:`update_blocks`.
    """
    if not path.is_file():
        raise FGCError(f'{path} is not a file; give a Markdown document.')
    old = path.read_text('utf-8')
    if path.suffix in SUFFIXES:
        new, stale = update_metafile(old, Path()), []
    else:
        new = update_blocks(old, Path())
        drawn = figures(new, Path(), path.parent)
        stale = [figure for figure in drawn if not figure.is_up_to_date()]
    if not check:
        for figure in stale:
            figure.write()
            print(f'updated: {figure.file} and .svg')
    if new != old and not check:
        write_atomically(new.encode(), path)
        print(f'updated: {path}')
    return new != old or bool(stale)
