"""A grid of small pictures with frames and text below them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...figure_style import BLACK, CORRECT, PAGE_WIDTH, WRONG, new_figure

PITCH = 1.1  # distance of pictures, in widths of a picture
LINE = 0.125  # height of a line of text in inches
SIZE = 6.5  # of the text in points


class ImageGrid:
    """A grid of pictures in a single Axes, which is fast for many pictures.

    Args:
        rows: Number of rows of pictures.
        columns: Number of columns of pictures.
        lines: Number of lines of text below each picture.
        left: Margin left of the pictures, in widths of a picture.

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
        """Show (H, W, 3) pixels, fitted into a square.

        The frame is blue if ``right``, dashed vermilion if not, and black if
        ``None``.
        """
        x, y = self._position(row, column)
        height, width = np.array(pixels.shape[:2]) / max(pixels.shape[:2])
        x0, y0 = x + (1 - width) / 2, y + (1 - height) / 2
        self._axes.imshow(
            pixels, extent=(x0, x0 + width, y0 + height, y0),
            interpolation='nearest', aspect='auto',
        )  # fmt: skip
        color = BLACK if right is None else CORRECT if right else WRONG
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
        """Write a word left of a row."""
        x, y = self._position(row, 0)
        self._axes.text(x - 0.08, y + 0.5, text, fontsize=SIZE + 0.5,
                        ha='right', va='center')  # fmt: skip

    def above(self, row: int, column: float, text: str) -> None:
        """Write a title above a picture."""
        x, y = self._position(row, column)
        self._axes.text(x, y - 0.3 * self._line, text, fontsize=SIZE + 1,
                        ha='left', va='bottom')  # fmt: skip

    def _position(self, row: int, column: float) -> tuple[float, float]:
        return (
            column * PITCH + 0.05,
            1.5 * self._line + row * self._pitch,
        )
