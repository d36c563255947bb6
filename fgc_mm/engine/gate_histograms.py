"""Histograms of the sites in the backends of MMEngine's visualizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mmengine.visualization import Visualizer
from torch import Tensor

COLUMNS = 4
BINS = 20


def add_histograms(
    visualizer: Visualizer, name: str, values: Mapping[str, Tensor], step: int
) -> None:
    """Add a histogram of each site to every backend, for a global step.

    Args:
        name: Prefix of the names of the sites.
        values: (C,) of each site, in [0, 1].
    """
    others = []
    for backend in visualizer._vis_backends.values():
        experiment = backend.experiment
        if hasattr(experiment, 'add_histogram'):  # TensorBoard
            for site, rates in values.items():
                experiment.add_histogram(f'{name}/{site}', rates, step)
        elif hasattr(experiment, 'Histogram'):  # the module wandb
            found = {
                f'{name}/{site}': experiment.Histogram(rates.tolist())
                for site, rates in values.items()
            }
            experiment.log(found, commit=False)
        else:
            others.append(backend)
    if others:
        picture = histogram_picture(values)
        for backend in others:
            # a local backend writes a file of this name
            backend.add_image(name.replace('/', '_'), picture, step=step)


def histogram_picture(values: Mapping[str, Tensor]) -> np.ndarray:
    """One picture of the histograms of all sites.

    Args:
        values: (C,) of each site, in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB.
    """
    # imported here: a run without this hook needs no matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from fgc_mm.figure_style import (
        OPEN_CHANNELS,
        PAGE_WIDTH,
        in_style,
        new_figure,
    )

    rows = -(-len(values) // COLUMNS)
    with in_style():
        figure = new_figure(PAGE_WIDTH, 1.2 * rows + 0.3, dpi=150)
        axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True)
        bins = np.linspace(0, 1, BINS + 1)
        for axis, (site, rates) in zip(axes.flat, values.items()):
            axis.hist(rates.numpy(), bins, color=OPEN_CHANNELS)
            axis.set_title(site)
            axis.set_xlim(0, 1)
        for axis in axes.flat[len(values) :]:
            axis.set_visible(False)
        figure.supxlabel('images that open a channel (fraction)', fontsize=8)
        figure.supylabel('channels', fontsize=8)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
