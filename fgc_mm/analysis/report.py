"""The report: every table, figure and number of an analysis, as files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
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
    """Write numbers.json, tables/, figures/ and report.html, each whole.

    Args:
        measured: One per checkpoint.
        options: What was measured.
        about: What the report's head says: names and values.
        folder: Where to.
        picture: Gives the picture of an image; ``None`` leaves them out.

    Returns:
        The report: one file with all figures in it and no link outside.

    Raises:
        FGCError: An image cannot be shown.
    """
    numbers = as_json(measured, options, about)
    write_atomically(numbers.encode(), folder / 'numbers.json')
    for name, text in tables(measured).items():
        write_atomically(text.encode(), folder / 'tables' / name)
    number, parts = 1, []
    for section in sections(measured, options, picture):
        part, number = _written(section, number, folder / 'figures')
        parts.append(part)
    html = _template().render(
        about=about, measured=measured, sections=parts, options=options
    )
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
    section: Section, number: int, folder: Path
) -> tuple[dict[str, Any], int]:
    """A section with its figures written and embedded, and the next number."""
    shown: list[dict[str, Any]] = []
    first: dict[str, int] = {}  # figure with this computation
    for figure in section.figures:
        computed = figure.caption.computed
        shown.append(
            dict(
                number=number,
                title=figure.title,
                caption=figure.caption,
                computed_as=first.get(computed),
                source=_embedded(figure, folder),
                width=_percent_of_page(figure),
            )
        )
        first.setdefault(computed, number)
        number += 1
    part = dict(
        anchor=section.anchor,
        title=section.title,
        text=section.text,
        figures=shown,
    )
    return part, number


def _percent_of_page(figure: ReportFigure) -> int:
    """How wide it is shown, so that all text is of one size."""
    return round(100 * min(figure.figure.get_figwidth() / PAGE_WIDTH, 1))


def _embedded(figure: ReportFigure, folder: Path) -> str:
    """Writes the figure in all formats; the SVG as a data URI."""
    for kind in FORMATS:
        content = figure_bytes(figure.figure, kind)
        write_atomically(content, folder / f'{figure.name}.{kind}')
    text = base64.b64encode(content).decode()
    return f'data:image/svg+xml;base64,{text}'
