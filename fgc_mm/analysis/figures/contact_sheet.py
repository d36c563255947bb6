"""Rows of small pictures with frames and lines of text below."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...figure_style import BLACK, BLUE, PAGE_WIDTH, VERMILION, new_figure

PITCH = 1.1  # from picture to picture, in widths of a picture
LINE = 0.125  # inches of a line of text
SIZE = 6.5  # of the text, points


class ContactSheet:
    """A grid of pictures in one axes, which is cheap for many of them.

    Args:
        rows: Of pictures.
        columns: Of pictures.
        lines: Of text below each.
        left: Room left of the pictures, in widths of a picture.

    Attributes:
        figure: The figure, a page wide.
    """

    def __init__(
        self, rows: int, columns: float, lines: int, left: float = 0.0
    ) -> None:
        width = columns * PITCH + left
        inch = width / PAGE_WIDTH  # in widths of a picture
        self._line = LINE * inch
        self._pitch = 1.06 + (lines + 0.6) * self._line
        height = rows * self._pitch + 1.6 * self._line
        self.figure: Figure = new_figure(
            PAGE_WIDTH, height / inch, layout='none'
        )
        self._axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(-left, width - left), ylim=(height, 0))
        self._axes.set_axis_off()

    def picture(
        self,
        row: int,
        column: float,
        pixels: np.ndarray,
        right: bool | None,
        text: str = '',
    ) -> None:
        """Shows (H, W, 3) pixels, fitted into a square.

        Frame: blue if ``right``, dashed vermilion if not, dark if ``None``.
        """
        x, y = self._place(row, column)
        height, width = np.array(pixels.shape[:2]) / max(pixels.shape[:2])
        x0, y0 = x + (1 - width) / 2, y + (1 - height) / 2
        self._axes.imshow(
            pixels, extent=(x0, x0 + width, y0 + height, y0),
            interpolation='nearest', aspect='auto',
        )  # fmt: skip
        color = BLACK if right is None else BLUE if right else VERMILION
        frame = Rectangle(
            (x0, y0), width, height, fill=False, edgecolor=color,
            linewidth=1.6, linestyle='--' if right is False else '-',
        )  # fmt: skip
        self._axes.add_patch(frame)
        self._axes.text(
            x + 0.5, y + 1 + 0.35 * self._line, text, fontsize=SIZE,
            ha='center', va='top',
        )  # fmt: skip

    def beside(self, row: int, text: str) -> None:
        """A word left of a row."""
        x, y = self._place(row, 0)
        self._axes.text(x - 0.08, y + 0.5, text, fontsize=SIZE + 0.5,
                        ha='right', va='center')  # fmt: skip

    def above(self, row: int, column: float, text: str) -> None:
        """A title above a picture."""
        x, y = self._place(row, column)
        self._axes.text(x, y - 0.3 * self._line, text, fontsize=SIZE + 1,
                        ha='left', va='bottom')  # fmt: skip

    def _place(self, row: int, column: float) -> tuple[float, float]:
        return (
            column * PITCH + 0.05,
            1.5 * self._line + row * self._pitch,
        )
