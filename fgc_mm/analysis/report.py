"""Writes the report: tables, figures and numbers of an analysis."""

import base64
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fgc_mm.reliability.atomic_file import write_atomically

from ..figure_style import FORMATS, PAGE_WIDTH, figure_bytes
from .figures.pictures import Picture
from .measurement import Measurement
from .options import AnalysisOptions
from .sections import ReportFigure, Section, sections
from .tables import as_json, tables

TEMPLATE = 'report.html.jinja'


def write_analysis(
    measured: Sequence[Measurement],
    options: AnalysisOptions,
    about: dict[str, Any],
    folder: Path,
    picture: Picture | None = None,
) -> Path:
    """Write numbers.json, tables/, figures/ and report.html atomically.

    Args:
        measured: One per checkpoint.
        options: Options of the analysis.
        about: Names and values at the top of the report.
        folder: Output folder.
        picture: Returns the picture of an image; ``None``: no pictures.

    Returns:
        Path of the report, one file with all figures and no external link.

    Raises:
        FGCError: An image cannot be shown.
    """
    numbers = as_json(measured, options, about)
    write_atomically(numbers.encode(), folder / 'numbers.json')
    for name, text in tables(measured).items():
        write_atomically(text.encode(), folder / 'tables' / name)
    numbering = count(1)
    parts = [
        _written(section, numbering, folder / 'figures')
        for section in sections(measured, options, picture)
    ]
    html = _template().render(about=about, measured=measured, sections=parts)
    report = folder / 'report.html'
    write_atomically(html.encode(), report)
    return report


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _written(
    section: Section, numbers: Iterator[int], folder: Path
) -> dict[str, Any]:
    """A section with its figures written, numbered and embedded."""
    shown: list[dict[str, Any]] = []
    first: dict[str, int] = {}  # first figure with this 'computed' text
    for figure, number in zip(section.figures, numbers):
        computed = figure.caption.computed
        shown.append(
            dict(
                vars(figure),
                number=number,
                computed_as=first.get(computed),
                source=_embedded(figure, folder),
                # in percent of the page, so that all text has one size
                width=round(100 * figure.figure.get_figwidth() / PAGE_WIDTH),
            )
        )
        first.setdefault(computed, number)
    return dict(vars(section), figures=shown)


def _embedded(figure: ReportFigure, folder: Path) -> str:
    """Write the figure in all formats; return the SVG as a data URI."""
    for kind in FORMATS:
        content = figure_bytes(figure.figure, kind)
        write_atomically(content, folder / f'{figure.name}.{kind}')
    text = base64.b64encode(content).decode()
    return f'data:image/svg+xml;base64,{text}'
