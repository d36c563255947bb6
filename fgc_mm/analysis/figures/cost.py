"""Figures of the MACs per image, and of the calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...figure_style import (
    COLUMN_WIDTH,
    CORRECT,
    GREY,
    LIGHT,
    PAGE_WIDTH,
    WRONG,
    in_style,
    legend_above,
    new_figure,
    series_style,
)
from ..measurement import Measurement
from .labels_and_grids import grid_shape, hide_unused, short, short_class

MOST_CLASSES = 25
FEW = 30  # images; a histogram of fewer is mostly noise


@in_style()
def draw_error_by_macs(measured: Sequence[Measurement]) -> Figure:
    """Error and confidence of the images by quantiles of their MACs."""
    figure = new_figure(PAGE_WIDTH, 2.8)
    left, right = figure.subplots(1, 2)
    for number, found in enumerate(measured):
        style = series_style(number)
        bins = found.bins
        macs = [row.mean / 1e6 for row in bins]
        error = np.array([100 * (1 - row.accuracy) for row in bins])
        low = np.array([100 * (1 - row.accuracy_high) for row in bins])
        high = np.array([100 * (1 - row.accuracy_low) for row in bins])
        spread = np.clip([error - low, high - error], 0, None)
        left.errorbar(macs, error, spread, capsize=2, elinewidth=0.7,
                      label=short(found.name), **style)  # fmt: skip
        right.plot(macs, [row.confidence for row in bins], **style)
    left.set_ylabel('error (%), 95 % interval')
    left.set_ylim(bottom=0)
    right.set_ylabel('mean confidence')
    for axis in (left, right):
        axis.set_xlabel('MACs of the images (millions), by quantile')
        axis.grid(True)
    if len(measured) > 1:
        handles = left.get_legend_handles_labels()
        figure.legend(*handles, loc='outside upper center', ncols=4)
    return figure


@in_style()
def draw_macs_of_answers(measured: Sequence[Measurement]) -> Figure:
    """Distribution of the MACs of correct and of wrong predictions."""
    rows, columns = grid_shape(len(measured), 3)
    figure = new_figure(PAGE_WIDTH, 2.2 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, found in zip(axes.flat, measured):
        _histograms(axis, found)
        axis.set_title(short(found.name, 34), pad=16)
        axis.set_xlabel('MACs of an image (millions)')
        legend_above(axis)
    hide_unused(axes, len(measured))
    for axis in axes[:, 0]:
        axis.set_ylabel('fraction of the images')
    return figure


def _histograms(axes: Any, found: Measurement) -> None:
    macs = np.asarray(found.stored.macs) / 1e6
    correct = found.stored.correct
    edges = np.histogram_bin_edges(macs, 24)
    right, wrong = macs[correct], macs[~correct]
    axes.hist(
        right, edges, weights=np.full(len(right), 1 / max(len(right), 1)),
        histtype='stepfilled', color=CORRECT, alpha=0.55,
        label=f'right ({len(right)})',
    )  # fmt: skip
    label = f'wrong ({len(wrong)})'
    if len(wrong) < FEW:
        axes.plot(
            wrong, np.zeros(len(wrong)), '|', color=WRONG, label=label,
            markersize=14, markeredgewidth=1.4, clip_on=False,
        )  # fmt: skip
        return
    axes.hist(
        wrong, edges, weights=np.full(len(wrong), 1 / len(wrong)),
        histtype='step', color=WRONG, linewidth=1.3, label=label,
    )  # fmt: skip


@in_style()
def draw_macs_of_classes(measured: Sequence[Measurement]) -> Figure:
    """Median and quartiles of the MACs of each class.

    Of many classes, those with the lowest and the highest medians.
    """
    shown = _shown_classes(measured[0])
    classes = [measured[0].stored.classes[label] for label in shown]
    figure = new_figure(PAGE_WIDTH, 2.4)
    axes = figure.subplots()
    width = 0.8 / len(measured)
    for number, found in enumerate(measured):
        _boxes(axes, found, number, width, shown)
    axes.set_xticks(range(len(classes)), [short_class(n, 14) for n in classes])
    axes.set_xlim(-0.6, len(classes) - 0.4)
    if sum(len(name) for name in classes) > 80:
        axes.tick_params(axis='x', rotation=40)
    axes.set_ylabel('MACs of an image (millions)')
    axes.grid(True, axis='y')
    if len(measured) > 1:
        legend_above(axes, 4)
    return figure


def _shown_classes(found: Measurement) -> list[int]:
    """Labels of the classes in the figure, in its order."""
    count = len(found.stored.classes)
    if count <= MOST_CLASSES:
        return [*range(count)]
    labels, macs = found.stored.labels, np.asarray(found.stored.macs)
    medians = {x: np.median(macs[labels == x]) for x in np.unique(labels)}
    order = sorted(medians, key=lambda label: medians[label])
    half = MOST_CLASSES // 2
    return order if len(order) <= 2 * half else order[:half] + order[-half:]


def _boxes(
    axes: Any,
    found: Measurement,
    number: int,
    width: float,
    shown: Sequence[int],
) -> None:
    labels, color = found.stored.labels, series_style(number)['color']
    drawn = [*filter(set(labels.tolist()).__contains__, shown)]
    for label in drawn:
        macs = np.asarray(found.stored.macs)[labels == label] / 1e6
        low, first, middle, third, high = np.percentile(
            macs, [5, 25, 50, 75, 95]
        )
        x = shown.index(label) + (number + 0.5) * width - 0.4
        axes.vlines(x, low, high, color=GREY, linewidth=0.8)
        axes.bar(
            x, third - first, width * 0.8, first, color=color, alpha=0.6,
            label=short(found.name) if label == drawn[0] else None,
        )  # fmt: skip
        axes.hlines(middle, x - width * 0.4, x + width * 0.4, 'black',
                    linewidth=1.0)  # fmt: skip


@in_style()
def draw_calibration(measured: Sequence[Measurement]) -> Figure | None:
    """Reliability diagrams; None if no scores are probabilities."""
    found = [m for m in measured if m.calibration is not None]
    if not found:
        return None
    rows, columns = grid_shape(len(found), 4)
    width = PAGE_WIDTH if columns > 1 else COLUMN_WIDTH
    figure = new_figure(width, 3.1 * rows)
    axes = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True,
        height_ratios=[3, 1] * rows,
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_visible(False)
    for number, one in enumerate(found):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row : 2 * row + 2, column]
        _reliability(upper, lower, one)
        if column == 0:
            upper.set_ylabel('accuracy')
            lower.set_ylabel('images (%)')
    return figure


def _reliability(upper: Any, lower: Any, found: Measurement) -> None:
    calibration = found.calibration
    assert calibration is not None  # the others have no axes
    bins = calibration.bins
    width = bins[0].high - bins[0].low
    filled = [row for row in bins if row.images]
    middles = [(row.low + row.high) / 2 for row in filled]
    upper.bar(middles, [row.accuracy for row in filled], width * 0.92,
              color=CORRECT)  # fmt: skip
    for middle, row in zip(middles, filled):
        assert row.confidence is not None and row.accuracy is not None
        upper.bar(
            middle, row.confidence - row.accuracy, width * 0.92, row.accuracy,
            color='none', edgecolor=WRONG, hatch='////', linewidth=0.6,
        )  # fmt: skip
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=':')
    upper.set(xlim=(0, 1), ylim=(0, 1))
    title = short(found.name, 24)
    upper.set_title(f'{title}\nECE {calibration.error:.3f}')
    percent = [100 * row.images / len(found.stored) for row in filled]
    lower.bar(middles, percent, width * 0.92, color=LIGHT)
    lower.set_xlabel('confidence')
    for axis in (upper, lower):
        axis.set_visible(True)
        axis.tick_params(labelbottom=axis is lower)
