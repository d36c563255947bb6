"""The style of every figure of the package.

Colours are those of Okabe and Ito ("Color universal design", 2008) and two of
Tol's "muted" scheme, which remain distinct for colour-blind readers. A series
also has a marker and a line style of its own, so that it can be recognised in
black and white. Figures are as wide as a column or a page of a paper, so
their text is printed at the size that is set here.
"""

import functools
import io
from contextlib import _GeneratorContextManager
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 7.0  # inches
BLUE, ORANGE, GREEN, VERMILION = '#0072B2', '#E69F00', '#009E73', '#D55E00'
PURPLE, SKY, BLACK, GREY = '#CC79A7', '#56B4E9', '#222222', '#8C8C8C'
WINE, OLIVE, LIGHT = '#882255', '#999933', '#D9D9D9'
COLORS = (
    BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, WINE, OLIVE, BLACK, GREY,
)  # fmt: skip
# What a colour means in every figure; series without a meaning (classes,
# methods, sites) take COLORS in turn, with a legend.
CORRECT, WRONG = BLUE, VERMILION  # predictions
DYNAMIC, OTHER = GREEN, GREY  # networks of which one is dynamic
DENSE_NETWORK, STATIC_PRUNING = BLACK, GREY  # beside several dynamic ones
OPEN_CHANNELS = PURPLE  # keep ratios and execution frequencies
DENSE_MARKERS = '*', 'h', 'd', '8'
MARKERS = 'o', 's', '^', 'D', 'v', 'P', 'X', 'p', '<', '>', '*'
LINES = '-', '--', '-.', ':'
SEQUENTIAL = 'cividis'  # of equal steps in lightness, for heat maps
FORMATS = 'png', 'svg'
# for letters that DejaVu Sans, which matplotlib has, lacks
MORE_FONTS = (
    'Noto Sans CJK SC', 'Noto Sans CJK JP', 'Noto Sans CJK KR',
    'WenQuanYi Micro Hei', 'Microsoft YaHei', 'PingFang SC',
    'Hiragino Sans GB', 'Arial Unicode MS', 'Noto Sans Devanagari',
    'Noto Sans Thai',
)  # fmt: skip

STYLE: dict[Any, Any] = {
    'font.size': 8.0,
    'axes.titlesize': 8.5,
    'axes.labelsize': 8.0,
    'axes.titlelocation': 'left',
    'axes.linewidth': 0.6,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'axes.edgecolor': BLACK,
    'axes.grid': False,
    'axes.prop_cycle': mpl.cycler(color=COLORS),  # type: ignore[attr-defined]
    'grid.color': LIGHT,
    'grid.linewidth': 0.5,
    'xtick.labelsize': 7.0,
    'ytick.labelsize': 7.0,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'legend.fontsize': 7.0,
    'legend.frameon': False,
    'lines.linewidth': 1.3,
    'lines.markersize': 4.0,
    'image.cmap': SEQUENTIAL,
    'figure.dpi': 100,
    'savefig.dpi': 200,
    'svg.fonttype': 'path',  # the same letters on every machine
    'svg.hashsalt': 'fgc_mm',  # equal figures are equal files
}


@functools.cache
def _style() -> dict[Any, Any]:
    """The style, with the installed fonts that have more letters."""
    installed = set(font_manager.get_font_names())
    families = [font for font in MORE_FONTS if font in installed]
    return STYLE | {'font.family': ['DejaVu Sans', *families]}


def literal_text(name: str) -> str:
    """A name as the text of a label or title.

    Between ``$`` matplotlib expects a formula, and it leaves labels out of a
    legend that begin with ``_``.
    """
    return f'{" " * name.startswith("_")}{name}'.replace('$', r'\$')


def in_style() -> _GeneratorContextManager[None]:
    """The package's style for a ``with`` block, or as a decorator.

    A figure must be drawn completely in it: matplotlib reads sizes and
    colours when an element is added.
    """
    return mpl.rc_context(_style())


def new_figure(
    width: float = COLUMN_WIDTH, height: float = 2.4, **options: Any
) -> Figure:
    """An empty figure with a layout in which elements do not overlap.

    Args:
        width: In inches; ``COLUMN_WIDTH`` or ``PAGE_WIDTH``.
        height: In inches.
        **options: As for matplotlib's ``Figure``.
    """
    options.setdefault('layout', 'constrained')
    return Figure(figsize=(width, height), **options)


def legend_above(axes: Any, columns: int = 2, **options: Any) -> None:
    """A legend above the axes, where it hides no data."""
    axes.legend(
        loc='lower left',
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        columnspacing=1.2,
        handlelength=1.8,
        borderaxespad=0.2,
        **options,
    )


def series_style(number: int) -> dict[str, Any]:
    """Colour, marker and line style of the number-th series."""
    return dict(
        color=COLORS[number % len(COLORS)],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=LINES[number % len(LINES)],
    )


def point_style(number: int) -> dict[str, Any]:
    """Colour and marker of the number-th series of points alone."""
    style = series_style(number)
    return dict(color=style['color'], marker=style['marker'])


def figure_bytes(
    figure: Figure, kind: str = 'png', description: str | None = None
) -> bytes:
    """The figure as the content of a file.

    Args:
        figure: Made by :func:`new_figure`; afterwards its layout is fixed.
        kind: One of ``FORMATS``.
        description: Text in the file, beside the image.
    """
    # without a date, equal figures are equal files
    metadata: dict[str, Any] = dict(Date=None) if kind == 'svg' else {}
    if description is not None:
        metadata['Description'] = description
    content = io.BytesIO()
    with in_style():
        figure.savefig(content, format=kind, metadata=metadata)
    figure.set_layout_engine('none')  # once is enough for all formats
    return content.getvalue()
