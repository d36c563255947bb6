"""The numbers of an analysis, as rows for CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from .measurement import Measurement
from .options import AnalysisOptions

Row = dict[str, Any]


def tables(measured: Sequence[Measurement]) -> dict[str, str]:
    """The text of every CSV file, by file name."""
    return {
        f'{name}.csv': _csv(
            {'checkpoint': found.name, **row}
            for found in measured
            for row in rows(found)
        )
        for name, rows in ROWS.items()
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
                **{name: list(ROWS[name](found)) for name in IN_JSON},
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


def _sites(found: Measurement) -> Iterator[Row]:
    for site in found.sites:
        yield {
            'site': site.site,
            'channels': site.channels,
            **site.use._asdict(),
            **{f'nmi_{k}' if '_' in k else k: v
               for k, v in site.clusters._asdict().items()},
            **{f'neighbors_{k}': v
               for k, v in site.neighbors._asdict().items()},
        }  # fmt: skip


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


def _dicts(rows: Iterable[Any]) -> Iterator[Row]:
    return (row._asdict() for row in rows)


# the rows of each table
ROWS: dict[str, Callable[[Measurement], Iterator[Row]]] = dict(
    summary=_summary,
    sites=_sites,
    frequency=_frequency,
    retrieval=_retrieval,
    macs_bins=lambda found: _dicts(found.bins),
    images=_images,
    embeddings=_embeddings,
    calibration=lambda found: _dicts(
        found.calibration.bins if found.calibration else ()
    ),
    exchanged_masks=lambda found: _dicts(found.exchanged),
)
IN_JSON = 'sites', 'macs_bins', 'calibration', 'exchanged_masks', 'retrieval'


def _csv(rows: Iterable[Row]) -> str:
    rows = iter(rows)
    first = next(rows, {})
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(first) or ['checkpoint'])
    writer.writeheader()
    writer.writerows(chain([first] if first else [], rows))
    return text.getvalue()
