"""Figure of a network with the masks of other images."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ...figure_style import PAGE_WIDTH, in_style, new_figure, series_style
from ..measurement import Measurement
from .labels_and_grids import short

LABEL_MARGIN = 0.3  # of the axes, for the text beside the longest bar


@in_style()
def draw_exchanged_masks(measured: Sequence[Measurement]) -> Figure | None:
    """Error with masks of each kind; None if there are none."""
    found = [one for one in measured if one.exchanged]
    if not found:
        return None
    kinds = [row.masks for row in found[0].exchanged]
    height = 0.8 / len(found)
    figure = new_figure(PAGE_WIDTH, 0.7 + 0.18 * len(kinds) * (len(found) + 1))
    axes = figure.subplots()
    for number, one in enumerate(found):
        errors = [100 * (1 - row.accuracy) for row in one.exchanged]
        shift = (number + 0.5) * height - 0.4
        bars = axes.barh(
            [kind + shift for kind in range(len(kinds))], errors,
            height * 0.85, label=short(one.name),
            color=series_style(number)['color'],
        )  # fmt: skip
        axes.bar_label(
            bars,
            [
                f'{error:.1f} % error, {100 * row.pruning_ratio:.1f} % pruned'
                for error, row in zip(errors, one.exchanged)
            ],
            padding=3, fontsize='small',
        )  # fmt: skip
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set_xlabel('error (%)')
    axes.set_ylabel('masks of an image')
    axes.margins(x=LABEL_MARGIN)
    if len(found) > 1:
        figure.legend(loc='outside upper center', ncols=4)
    return figure
