"""Figures with pictures of single images."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from ...figure_style import in_style
from ..measurement import Measurement
from .image_grid import ImageGrid
from .labels_and_grids import millions, short_class

Picture = Callable[[int], np.ndarray]
GAP = 1.3  # columns from the query to the first retrieved image


@in_style()
def draw_retrieval(found: Measurement, picture: Picture) -> Figure:
    """A row per query: the query, then images with near gate vectors."""
    stored, retrieval = found.stored, found.retrieval
    labels, names = np.asarray(stored.labels), stored.classes
    rows, columns = retrieval.found.shape
    sheet = ImageGrid(rows, columns + GAP, 2, left=1.0)
    sheet.above(0, 0, 'query')
    sheet.above(0, GAP, 'images with the nearest gate vectors')
    for row, query in enumerate(retrieval.queries):
        sheet.beside(row, short_class(names[labels[query]]))
        sheet.picture(row, 0, picture(stored.indices[query]), None)
        for rank, index in enumerate(retrieval.found[row]):
            similarity = retrieval.similarity[row, rank]
            sheet.picture(
                row, rank + GAP, picture(stored.indices[index]),
                bool(labels[index] == labels[query]),
                f'{short_class(names[labels[index]])}\n{similarity:.2f}',
            )  # fmt: skip
    return sheet.figure


@in_style()
def draw_extremes(found: Measurement, picture: Picture) -> Figure:
    """The cheapest images above, the most expensive ones below."""
    stored = found.stored
    groups = (
        ('cheapest', found.cheapest),
        ('most expensive', found.most_expensive),
    )
    sheet = ImageGrid(2, max(len(found.cheapest), 6), 4)
    for row, (title, chosen) in enumerate(groups):
        sheet.above(row, 0, title)
        for column, index in enumerate(chosen):
            label, predicted = stored.labels[index], stored.predictions[index]
            right = bool(label == predicted)
            lines = [short_class(stored.classes[label])]
            if not right:
                lines.append(f'→ {short_class(stored.classes[predicted], 9)}')
            lines.append(millions(stored.macs[index]))
            sheet.picture(
                row, column, picture(stored.indices[index]), right,
                '\n'.join(lines),
            )  # fmt: skip
    return sheet.figure
