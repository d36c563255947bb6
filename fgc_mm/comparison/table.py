"""The rows of a comparison, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..errors import FGCError
from .markdown import markdown_table
from .results import RATIO

# errors, dense errors and pruning ratios are in percent, or empty if unknown;
# 'table' is the table in the source, which may quote another paper
PUBLISHED = (
    'method', 'backbone', 'dataset', 'dense_error', 'error',
    'dense_top5_error', 'top5_error', 'pruning_ratio', 'which_epoch',
    'counting', 'source', 'table',
)  # fmt: skip
PUBLISHED_FILE = Path(str(files('fgc_mm.comparison') / 'published.csv'))
Results = Sequence[Mapping[str, Any]]  # as results.py writes them


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (None for a single value)."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> MeanStd:
        """Computed from at least one value."""
        values = list(values)
        return cls(mean(values), stdev(values) if len(values) > 1 else None)

    def text(self, digits: int = 2) -> str:
        """As text: mean ± standard deviation."""
        if self.std is None:
            return f'{self.mean:.{digits}f}'
        return f'{self.mean:.{digits}f} ± {self.std:.{digits}f}'


@dataclass(frozen=True)
class Row:
    """All runs of one method.

    Attributes:
        method: Its name.
        data: Its data set.
        epochs: Number of epochs of each run.
        dynamic: Whether the open channels depend on the image.
        seeds: Seeds of the runs that are done.
        values: Mean and deviation of each number of the results, by name.
        results: Of its runs.
    """

    method: str
    data: str
    epochs: int
    dynamic: bool
    seeds: tuple[int, ...]
    values: dict[str, MeanStd]
    results: Results = ()


def rows_of(results: Results) -> list[Row]:
    """One row per method, in the order of the results."""
    methods = dict.fromkeys(result['method'] for result in results)
    groups = [[r for r in results if r['method'] == m] for m in methods]
    return [_row(group) for group in groups]


def _row(group: Results) -> Row:
    first = group[0]
    numbers = [k for k, v in first.items() if isinstance(v, float)]
    numbers.append('parameters')
    return Row(
        first['method'],
        first['data'],
        first['epochs'],
        first['dynamic'],
        tuple(result['seed'] for result in group),
        {k: MeanStd.of(r[k] for r in group if k in r) for k in numbers},
        group,
    )


def summary(row: Row) -> list[str]:
    """Number of seeds, both errors, pruning ratio and MACs."""
    values = row.values
    return [
        str(len(row.seeds)), values['error'].text(),
        values['best_error'].text(), values['macs/pruning_ratio'].text(1),
        f'{values["macs/mean"].mean:,.0f}',
    ]  # fmt: skip


def hardware(row: Row) -> str:
    """What the runs were trained on."""
    found = [result['environment'] for result in row.results]
    return '; '.join(dict.fromkeys(x.get('GPU', x['CPU']) for x in found))


def read_published(path: Path) -> list[dict[str, str]]:
    """The published numbers, one dict per row of the file.

    Raises:
        FGCError: The file is missing, is no CSV, has other columns or no
            rows, or a row has more or fewer fields than there are columns.
    """
    what = f'published numbers are a CSV of {",".join(PUBLISHED)}'
    if not path.is_file():
        raise FGCError(f'{path} is not a file: {what}; check the path.')
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise FGCError(
            f'{path} cannot be read ({error}): {what}; save it in UTF-8.'
        ) from None
    if tuple(reader.fieldnames or ()) != PUBLISHED:
        raise FGCError(
            f'{path} has the columns {reader.fieldnames}: {what}; rename them.'
        )
    if not rows:
        raise FGCError(f'{path} has no row: {what}; add one.')
    for row in rows:
        if None in row or None in row.values():
            raise FGCError(
                f'the row of {row["method"]!r} in {path} does not have '
                f'{len(PUBLISHED)} fields: {what}; leave unknown ones empty.'
            )
    return rows


def published_for(
    published: Sequence[dict[str, str]],
    methods: Iterable[str],
    dataset: str | None = None,
) -> list[dict[str, str]]:
    """Published numbers of the methods' backbones and data sets.

    Both are found between the underscores of the methods' names:
    ``fgc_resnet20_cifar10`` gives ResNet-20 on CIFAR-10.

    Args:
        published: As :func:`read_published` returns them.
        methods: Names of methods or configs.
        dataset: In place of those in the names.
    """
    words = {word for name in methods for word in name.split('_')}
    datasets = words if dataset is None else {dataset}
    return [
        row
        for row in published
        if row['backbone'] in words and row['dataset'] in datasets
    ]


def check_published_dataset(
    published: Sequence[dict[str, str]], dataset: str | None
) -> None:
    """Raise FGCError if a data set has no published numbers."""
    known = sorted({row['dataset'] for row in published})
    if dataset not in (None, *known):
        raise FGCError(
            f'--published-dataset {dataset} has no published numbers; '
            f'choose among {", ".join(known)}.'
        )


def markdown(rows: Sequence[Row], published: Sequence[dict]) -> str:
    """One table, in which published numbers are marked as such."""
    ratios = _ratios(rows)
    top5 = any('top5_error' in row.values for row in rows)
    head = [
        'method', 'numbers', 'data', 'dynamic', 'epochs', 'seeds',
        'error %, last epoch', 'error %, best epoch',
        *(['top-5 error %, last epoch'] if top5 else []),
        *(f'pruned %, {_counting(name)}' for name in ratios),
        'pruned %, as published', 'MACs', 'parameters', 'training time',
    ]  # fmt: skip
    lines = [_measured(row, ratios, top5) for row in rows]
    lines += [_published(row, len(ratios), top5) for row in published]
    return markdown_table(head, lines)


def _measured(row: Row, ratios: list[str], top5: bool) -> list[str]:
    values = row.values
    five = [values['top5_error'].text() if 'top5_error' in values else '']
    return [
        row.method, 'measured', row.data, 'yes' if row.dynamic else 'no',
        str(row.epochs), ', '.join(map(str, row.seeds)),
        values['error'].text(), values['best_error'].text(),
        *(five if top5 else []),
        *(values[r].text(1) if r in values else '' for r in ratios),
        '', f'{values["macs/mean"].mean:,.0f}',
        f'{values["parameters"].mean:,.0f}',
        _duration(values['seconds'].mean),
    ]  # fmt: skip


def _published(row: dict[str, str], ratios: int, top5: bool) -> list[str]:
    error = row['error']
    if error and row['dense_error']:
        error += f' (dense {row["dense_error"]})'
    best = error if row['which_epoch'] == 'best' else ''
    last = '' if best else error
    if last and row['which_epoch'] == 'unknown':
        last += ', epoch unknown'
    source = ', '.join(filter(None, (row['source'], row['table'])))
    return [
        f'{row["method"]} {row["backbone"]}', f'published: {source}',
        row['dataset'], '', '', '', last, best,
        *([row['top5_error']] if top5 else []), *[''] * ratios,
        row['pruning_ratio'], '', '', '',
    ]  # fmt: skip


def table_csv(rows: Sequence[Row], published: Sequence[dict]) -> str:
    """The table as CSV: mean and std of every number."""
    numbers = list(dict.fromkeys(k for row in rows for k in row.values))
    fields = ['method', 'numbers', 'data', 'dynamic', 'epochs', 'seeds']
    fields += [f'{k}_{what}' for k in numbers for what in ('mean', 'std')]
    fields += [f'published_{name}' for name in PUBLISHED[1:]]
    measured = [
        dict(
            method=row.method, numbers='measured', data=row.data,
            dynamic=row.dynamic, epochs=row.epochs,
            seeds=' '.join(map(str, row.seeds)),
            **{f'{name}_{what}': value
               for name, spread in row.values.items()
               for what, value in vars(spread).items()},
        )
        for row in rows
    ]  # fmt: skip
    others = [
        {'method': row['method'], 'numbers': 'published'}
        | {f'published_{name}': row[name] for name in PUBLISHED[1:]}
        for row in published
    ]
    return _csv(fields, [*measured, *others])


def runs_csv(results: Results) -> str:
    """One row per run."""
    flat = [
        {k: v for k, v in result.items() if not isinstance(v, (dict, list))}
        for result in results
    ]
    return _csv(list(dict.fromkeys(k for line in flat for k in line)), flat)


def _csv(fields: list[str], lines: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _ratios(rows: Sequence[Row]) -> list[str]:
    """Every counting that any row has, 'honest' first."""
    return sorted({k for r in rows for k in r.values if k.startswith(RATIO)})


def _counting(metric: str) -> str:
    name = metric.removeprefix(RATIO).strip('_')
    return f'counted as {name.replace("_", "-")}' if name else 'honest'


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f'{seconds:.0f} s'
    return f'{minutes:.0f} min' if minutes < 100 else f'{minutes / 60:.1f} h'
