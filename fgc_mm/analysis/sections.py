"""The sections of the report and their figures.

To add a figure: draw it in a file of :mod:`fgc_mm.analysis.figures`, write its
caption in ``captions.py``, and enter it here in ``shared`` (or in
``_per_checkpoint``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from matplotlib.figure import Figure

from . import captions
from .figures import cost, exchange, maps, per_site, pictures
from .measurement import Embedding, Measurement
from .options import AnalysisOptions


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report.

    Attributes:
        name: Name of its files, without suffix.
        figure: The figure.
        caption: What it shows and how that is computed.
        title: Alternative text of the image.
    """

    name: str
    figure: Figure
    caption: captions.Caption
    title: str


@dataclass(frozen=True)
class Section:
    """A section of the report."""

    anchor: str
    title: str
    text: str
    figures: tuple[ReportFigure, ...]


def sections(
    measured: Sequence[Measurement],
    options: AnalysisOptions,
    picture: pictures.Picture | None,
) -> Iterator[Section]:
    """All sections, figures drawn one section at a time.

    Arguments are as of :func:`fgc_mm.analysis.write_analysis`.
    """
    # section, name, title, caption, function
    shared = [
        ('clusters', 'clusters', 'Clusters of features and gates',
         captions.CLUSTERS, per_site.draw_clusters),
        ('neighbors', 'neighbors', 'Neighbours in both spaces',
         captions.NEIGHBORS, per_site.draw_neighbors),
        ('cost', 'error_by_macs', 'Error by MACs',
         captions.ERROR_BY_MACS, cost.draw_error_by_macs),
        ('cost', 'macs_of_answers', 'MACs of correct and wrong predictions',
         captions.MACS_OF_ANSWERS, cost.draw_macs_of_answers),
        ('cost', 'macs_of_classes', 'MACs of each class',
         captions.MACS_OF_CLASSES, cost.draw_macs_of_classes),
        ('exchange', 'exchanged_masks', 'Error with the masks of other images',
         captions.EXCHANGED_MASKS, exchange.draw_exchanged_masks),
        ('channels', 'channels', 'Dead and always-open channels',
         captions.CHANNELS, per_site.draw_channels),
        ('calibration', 'calibration', 'Calibration',
         captions.CALIBRATION, cost.draw_calibration),
    ]  # fmt: skip
    each = _per_checkpoint(measured, options, picture)
    for anchor, (title, text) in captions.SECTIONS.items():
        found = each.get(anchor, [])
        for section, name, alternative, caption, draw in shared:
            figure = draw(measured) if section == anchor else None
            if figure is not None:
                caption = caption.of(measured[0], options)
                found.append(ReportFigure(name, figure, caption, alternative))
        if found:
            yield Section(anchor, title, text, tuple(found))


def _per_checkpoint(
    measured: Sequence[Measurement],
    options: AnalysisOptions,
    picture: pictures.Picture | None,
) -> dict[str, list[ReportFigure]]:
    found = dict(embeddings=_embeddings(measured, options))
    kinds: list[tuple[str, captions.Caption, Callable[..., Figure]]]
    kinds = [('frequency', captions.FREQUENCY, maps.draw_frequency)]
    if picture is not None:
        kinds += [
            ('retrieval', captions.RETRIEVAL,
             lambda one: pictures.draw_retrieval(one, picture)),
            ('extremes', captions.EXTREMES,
             lambda one: pictures.draw_extremes(one, picture)),
        ]  # fmt: skip
    for anchor, caption, draw in kinds:
        found[anchor] = [
            ReportFigure(
                f'{anchor}_{file_name(one.name)}', draw(one),
                caption.of(one, options), f'{anchor}, {one.name}',
            )
            for one in measured
        ]  # fmt: skip
    return found


def _embeddings(
    measured: Sequence[Measurement], options: AnalysisOptions
) -> list[ReportFigure]:
    first = measured[0]
    caption = captions.EMBEDDINGS.of(first, options)
    if len(measured) == 1:
        figure = maps.draw_embeddings(measured)
        return [ReportFigure('embeddings', figure, caption, 'embeddings')]
    return [
        ReportFigure(
            f'embeddings_{file_name(site)}',
            maps.draw_embeddings(measured, site),
            captions.EMBEDDINGS_OVER.of(
                replace(first, embeddings=_of_site(measured, site)),
                options,
                site,
            ),
            f'embeddings of {site}',
        )
        for site in first.shown
    ]


def _of_site(
    measured: Sequence[Measurement], site: str
) -> tuple[Embedding, ...]:
    """The embeddings of a site, of all checkpoints."""
    return tuple(
        found for one in measured for found in one.embeddings
        if found.site == site
    )  # fmt: skip


def file_name(name: str) -> str:
    """A checkpoint or site as part of a file's name."""
    return '-'.join(PurePath(name).parts).replace(' ', '_')
