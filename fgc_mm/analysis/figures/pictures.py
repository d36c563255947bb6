"""Figures with pictures of single images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from ...figure_style import in_style
from ..measure import Measurement
from .contact_sheet import ContactSheet
from .panels import millions, short

Picture = Callable[[int], np.ndarray]
GAP = 1.3  # columns from the query to the first retrieved image


@in_style()
def draw_retrieval(found: Measurement, picture: Picture) -> Figure:
    """A row per query: the query, then the images with the nearest gates."""
    stored, retrieval = found.stored, found.retrieval
    labels, names = np.asarray(stored.labels), stored.classes
    rows, columns = retrieval.found.shape
    sheet = ContactSheet(rows, columns + GAP, 1, left=0.6)
    sheet.above(0, 0, 'query')
    sheet.above(0, GAP, 'images with the nearest gates')
    for row, query in enumerate(retrieval.queries):
        sheet.beside(row, short(names[labels[query]], 10))
        sheet.picture(row, 0, picture(stored.indices[query]), None)
        for rank, index in enumerate(retrieval.found[row]):
            near = retrieval.similarity[row, rank]
            sheet.picture(
                row, rank + GAP, picture(stored.indices[index]),
                bool(labels[index] == labels[query]),
                f'{short(names[labels[index]], 10)} ({near:.2f})',
            )  # fmt: skip
    return sheet.figure


@in_style()
def draw_extremes(found: Measurement, picture: Picture) -> Figure:
    """The cheapest images above, the dearest below."""
    stored = found.stored
    groups = ('cheapest', found.cheapest), ('dearest', found.dearest)
    sheet = ContactSheet(2, max(len(found.cheapest), 6), 3)
    for row, (title, chosen) in enumerate(groups):
        sheet.above(row, 0, title)
        for column, index in enumerate(chosen):
            label, said = stored.labels[index], stored.predictions[index]
            right = bool(label == said)
            text = short(stored.classes[label], 11)
            if not right:
                text += f' → {short(stored.classes[said], 9)}'
            sheet.picture(
                row, column, picture(stored.indices[index]), right,
                f'{text}\n{millions(stored.macs[index])}',
            )  # fmt: skip
    return sheet.figure
