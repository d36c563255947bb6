"""Writes the report: tables, figures and numbers of an analysis."""

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
    """Write numbers.json, tables/, figures/ and report.html atomically.

    Args:
        measured: One per checkpoint.
        options: Of the analysis.
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
    first: dict[str, int] = {}  # first figure with this 'computed' text
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
    """Width of the figure in the page, so that all text has one size."""
    return round(100 * min(figure.figure.get_figwidth() / PAGE_WIDTH, 1))


def _embedded(figure: ReportFigure, folder: Path) -> str:
    """Write the figure in all formats; return the SVG as a data URI."""
    for kind in FORMATS:
        content = figure_bytes(figure.figure, kind)
        write_atomically(content, folder / f'{figure.name}.{kind}')
    text = base64.b64encode(content).decode()
    return f'data:image/svg+xml;base64,{text}'
