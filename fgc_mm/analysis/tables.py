"""The numbers of an analysis, as rows for CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from .measurement import Measurement, SiteNumbers
from .options import AnalysisOptions

Row = dict[str, Any]


def tables(measured: Sequence[Measurement]) -> dict[str, str]:
    """The text of every CSV file, by file name."""
    kinds = dict(
        summary=_summary,
        sites=_sites,
        frequency=_frequency,
        retrieval=_retrieval,
        macs_bins=lambda found: (row._asdict() for row in found.bins),
        images=_images,
        embeddings=_embeddings,
        calibration=_calibration,
        exchanged_masks=_exchanged,
    )
    return {
        f'{name}.csv': _csv(
            {'checkpoint': found.name, **row}
            for found in measured
            for row in rows(found)
        )
        for name, rows in kinds.items()
    }


def as_json(
    measured: Sequence[Measurement],
    options: AnalysisOptions,
    about: dict[str, Any],
) -> str:
    """All numbers except those of single images and channels (see CSV)."""
    content = dict(
        about=about,
        options=asdict(options),
        checkpoints=[
            dict(
                name=found.name,
                clusters=found.clusters,
                neighbors=found.neighbors,
                embedding=sorted({e.method for e in found.embeddings}),
                summary=next(_summary(found)),
                sites=list(_sites(found)),
                macs_bins=[row._asdict() for row in found.bins],
                calibration=list(_calibration(found)),
                exchanged_masks=list(_exchanged(found)),
                retrieval=list(_retrieval(found)),
                cheapest=found.stored.indices[found.cheapest].tolist(),
                most_expensive=found.stored.indices[
                    found.most_expensive
                ].tolist(),
            )
            for found in measured
        ],
    )
    return json.dumps(content, indent=1, allow_nan=False) + '\n'


def _summary(found: Measurement) -> Iterator[Row]:
    row = found.summary._asdict()
    for name in ('macs_and_error', 'macs_and_confidence'):
        rank = row.pop(name)
        row[f'{name}_correlation'] = rank.correlation
        row[f'{name}_p_value'] = rank.p_value
    yield row


def site_row(site: SiteNumbers) -> Row:
    """The numbers of a site as one row."""
    return {
        'site': site.site,
        'channels': site.channels,
        **site.use._asdict(),
        **{f'nmi_{k}' if '_' in k else k: v
           for k, v in site.clusters._asdict().items()},
        **{f'neighbors_{k}': v for k, v in site.neighbors._asdict().items()},
    }  # fmt: skip


def _sites(found: Measurement) -> Iterator[Row]:
    return map(site_row, found.sites)


def _frequency(found: Measurement) -> Iterator[Row]:
    for site, table in found.frequency.items():
        for label, name in enumerate(found.stored.classes):
            for channel, fraction in enumerate(table[label]):
                yield dict(
                    site=site,
                    channel=channel,
                    label=name,
                    frequency='' if math.isnan(fraction) else float(fraction),
                )


def _retrieval(found: Measurement) -> Iterator[Row]:
    stored, retrieval = found.stored, found.retrieval
    for row, query in enumerate(retrieval.queries):
        for rank, index in enumerate(retrieval.found[row]):
            yield dict(
                query=int(stored.indices[query]),
                query_label=stored.classes[stored.labels[query]],
                rank=rank + 1,
                image=int(stored.indices[index]),
                label=stored.classes[stored.labels[index]],
                similarity=float(retrieval.similarity[row, rank]),
            )


def _images(found: Measurement) -> Iterator[Row]:
    stored = found.stored
    confidence = np.asarray(stored.scores).max(axis=1)
    for number, index in enumerate(stored.indices):
        yield dict(
            image=int(index),
            label=stored.classes[stored.labels[number]],
            prediction=stored.classes[stored.predictions[number]],
            confidence=float(confidence[number]),
            macs=float(stored.macs[number]),
        )


def _embeddings(found: Measurement) -> Iterator[Row]:
    stored = found.stored
    for embedding in found.embeddings:
        for number, (x, y) in zip(found.embedded, embedding.points):
            yield dict(
                site=embedding.site,
                space=embedding.space,
                method=embedding.method,
                image=int(stored.indices[number]),
                label=stored.classes[stored.labels[number]],
                x=float(x),
                y=float(y),
            )


def _calibration(found: Measurement) -> Iterator[Row]:
    if found.calibration is not None:
        yield from (row._asdict() for row in found.calibration.bins)


def _exchanged(found: Measurement) -> Iterator[Row]:
    return (row._asdict() for row in found.exchanged)


def _csv(rows: Iterable[Row]) -> str:
    rows = iter(rows)
    first = next(rows, {})
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(first) or ['checkpoint'])
    writer.writeheader()
    writer.writerows(chain([first] if first else [], rows))
    return text.getvalue()
