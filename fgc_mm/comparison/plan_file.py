"""Reading the plan file of a comparison."""

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from fgc_mm.engine.config_options import read_options

from ..config_files import find_config
from ..errors import FGCError
from .entry import Entry, Start, split_entry
from .questions import Question
from .study import PRUNING_RATIO, SEEDS, Axis, Study

METHOD = {
    'config', 'name', 'label', 'options', 'seeds', 'epochs', 'pretrain',
    'pretrain_epochs', 'pruning_ratio', 'teacher', 'teacher_epochs',
}  # fmt: skip
# keys of the plan that rows may override
SHARED = 'pretrain', 'pretrain_epochs'
PLAN = {
    'title', 'methods', 'seeds', 'epochs', 'options', 'pretrain',
    'pretrain_epochs', 'pruning_ratio', 'match_macs', 'published_dataset',
    'questions', 'axis',
}  # fmt: skip
EXPONENT = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+')
KINDS = {
    bool: 'true or false', str: 'text (in YAML, numbers need quotes)',
    list: 'a list', int: 'a whole number', float: 'a number',
}  # fmt: skip


def read_study(path: Path) -> Study:
    """Reads a plan file (YAML; see docs/comparing.md for its keys).

    Paths of configs are relative to the file. A plan of the package is found
    by its name, such as ``studies/figure5_rho.yaml``.

    Raises:
        FGCError: The file is missing or not YAML, or it has an unknown key,
            a value of the wrong type, or a question about an unknown row.
    """
    path = find_config(path) or path
    content = _mapping(_load(path), PLAN, f'{path}')
    methods = content.get('methods')
    if not isinstance(methods, list) or not methods:
        raise FGCError(
            f'{path} has methods={methods!r}, which is not a list of configs; '
            'write methods: [CONFIG, {name: ..., config: ...}].'
        )
    shared = {key: content.get(key) for key in SHARED}
    entries = tuple(_entry(path, method, shared) for method in methods)
    starts = any(entry.pretrains for entry in entries)
    if shared['pretrain_epochs'] is not None and not starts:
        raise _unread_epochs(path, 'pretrain')
    rows = [entry.row for entry in entries]
    questions = _of_kind(path, content, 'questions', list)
    ratio = _of_kind(path, content, 'pruning_ratio', float)
    return Study(
        title=str(content.get('title', path.stem)),
        entries=entries,
        seeds=_seeds(path, content) or SEEDS,
        epochs=_of_kind(path, content, 'epochs', int),
        options=_options(path, content),
        pruning_ratio=PRUNING_RATIO if ratio is None else ratio,
        match_macs=bool(_of_kind(path, content, 'match_macs', bool)),
        published_dataset=_of_kind(path, content, 'published_dataset', str),
        questions=tuple(_question(path, q, rows) for q in questions or ()),
        axis=_axis(path, content.get('axis'), rows),
    )


def _load(path: Path) -> object:
    if not path.is_file():
        raise FGCError(
            f'{path} is not a file: --plan reads a YAML file such as those '
            'in configs/studies/; check the path.'
        )
    try:
        return yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = ' '.join(str(error).split())
        raise FGCError(
            f'{path} is not YAML ({text}); correct the line.'
        ) from error


def _mapping(content: object, known: set[str], where: str) -> dict[str, Any]:
    """The content as a dict of known keys."""
    if not isinstance(content, dict):
        raise FGCError(
            f'{where} is {content!r}, which is not a mapping; write '
            f'key: value with keys among {", ".join(sorted(known))}.'
        )
    for key in content:
        if key not in known:
            raise FGCError(
                f'{where} has the key {key!r}, which nothing reads; choose '
                f'among {", ".join(sorted(known))}.'
            )
    return content


def _entry(path: Path, method: object, shared: Mapping[str, Any]) -> Entry:
    if isinstance(method, str):
        method = {'config': method}
    own = _mapping(method, METHOD, f'a method of {path}')
    found = {**shared, **own}
    if not isinstance(found.get('config'), str):
        raise FGCError(
            f'a method of {path} has config={found.get("config")!r}, which '
            'is not a path; write config: ../NAME.py, relative to the file.'
        )
    importance, config = split_entry(found['config'])
    start, teacher = (_start(path, found, k) for k in ('pretrain', 'teacher'))
    for key in ('pretrain', 'teacher'):
        if found.get(key) is None and own.get(f'{key}_epochs') is not None:
            raise _unread_epochs(path, key)
    if start is not None and teacher is not None:
        raise FGCError(
            f'{config} in {path} has pretrain and teacher, but a run that '
            'starts from a network has that one as its teacher; write one of '
            'them, or pretrain: null.'
        )
    return Entry(
        config=_relative(path, config),
        importance=importance,
        name=_name(path, found),
        label=_of_kind(path, found, 'label', str),
        options=_options(path, found),
        seeds=_seeds(path, found),
        epochs=_of_kind(path, found, 'epochs', int),
        pruning_ratio=_of_kind(path, found, 'pruning_ratio', float),
        start=start or teacher,
        loads_start=teacher is None,
    )


def _start(path: Path, content: Mapping[str, Any], key: str) -> Start | None:
    """The run that a key (a config) and its ``_epochs`` describe."""
    config = _of_kind(path, content, key, str)
    epochs = _of_kind(path, content, f'{key}_epochs', int)
    return None if config is None else Start(_relative(path, config), epochs)


def _unread_epochs(path: Path, key: str) -> FGCError:
    return FGCError(
        f'{path} has {key}_epochs without {key}, so nothing reads it; add '
        f'{key}: ../NAME.py, or leave it out.'
    )


def _name(path: Path, content: Mapping[str, Any]) -> str | None:
    name = _of_kind(path, content, 'name', str)
    if name is None or (name.strip('. ') and not {*name} & {*'/\\|\n'}):
        return name
    raise FGCError(
        f'{path} has name={name!r}, which cannot be the name of a folder and '
        'of a row; write one without /, \\ and |.'
    )


def _of_kind(
    path: Path, content: Mapping[str, Any], key: str, kind: type
) -> Any:
    value = content.get(key)
    if value is not None and not _is(value, kind):
        raise FGCError(
            f'{path} has {key}={value!r}, which is not {KINDS[kind]}; '
            'correct it.'
        )
    if value is not None and kind is int and value < 1:
        raise FGCError(f'{path} has {key}={value}; give at least 1.')
    return value


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a kind; for Python, true is a number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _relative(path: Path, config: str) -> str:
    """A config beside the plan, or else one of the package."""
    beside = path.parent / config
    found = beside if beside.is_file() else find_config(config)
    return str(found or beside)


def _seeds(path: Path, content: Mapping[str, Any]) -> tuple[int, ...] | None:
    seeds = content.get('seeds')
    if seeds is None:
        return None
    valid = isinstance(seeds, list) and all(_is(s, int) for s in seeds)
    if not valid or not seeds:
        raise FGCError(
            f'{path} has seeds={seeds!r}, which is not a list of whole '
            'numbers; write seeds: [0, 1, 2].'
        )
    return tuple(seeds)


def _options(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """A mapping of dotted keys, as arguments of ``--cfg-options``."""
    options = content.get('options') or {}
    if not isinstance(options, dict):
        raise FGCError(
            f'{path} has options={options!r}, which is not a mapping; write '
            'options: {model.gate_losses.1.loss_weight: 0.4}.'
        )
    pairs = tuple(f'{k}={_typed(path, k, v)}' for k, v in options.items())
    for (key, value), read in zip(
        options.items(), read_options(pairs).values(), strict=True
    ):
        if not _same(value, read):
            raise FGCError(
                f'{path} sets {key} to {value!r}, which --cfg-options read as '
                f'{read!r}; write a config that sets it.'
            )
    return pairs


def _same(value: Any, read: Any) -> bool:
    """Whether an option is read as written, except for 1e-7 and 2.5e4.

    YAML takes a number without a point, or whose exponent has no sign, for
    text.
    """
    if isinstance(value, list) and isinstance(read, list):
        return len(value) == len(read) and all(map(_same, value, read))
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return read == float(value)
    return type(value) is type(read) and value == read


def _typed(path: Path, key: str, value: object) -> str:
    if isinstance(value, list):
        return f'[{",".join(_typed(path, key, item) for item in value)}]'
    if isinstance(value, dict):
        raise FGCError(
            f'{path} sets {key} to the mapping {value!r}, which '
            '--cfg-options cannot express; set each of its keys, as '
            f'{key}.KEY: VALUE, or write a config.'
        )
    return str(value)


def _question(path: Path, content: object, rows: list[str]) -> Question:
    where = f'a question of {path}'
    found = _mapping(content, {'ask', 'row', 'against'}, where)
    for key in ('row', 'against'):
        row = found.get(key)
        _check_row(f'{where} has {key}={row!r}', row, rows)
    text = str(found.get('ask', f'{found["row"]} against {found["against"]}'))
    return Question(text, found['row'], found['against'])


def _axis(path: Path, content: object, rows: list[str]) -> Axis | None:
    if content is None:
        return None
    where = f'the axis of {path}'
    found = _mapping(content, {'label', 'series'}, where)
    series: Any = found.get('series')
    lines = series.values() if isinstance(series, dict) else ()
    if not lines or not all(map(_is_line, lines)):
        raise FGCError(
            f'{where} has series={series!r}, but it needs lines of rows; '
            'write series: {NAME: {ROW: VALUE, ...}} or {NAME: [ROW, ...]}.'
        )
    points = {
        name: dict(line) if isinstance(line, dict) else dict.fromkeys(line)
        for name, line in series.items()
    }
    label = _of_kind(path, found, 'label', str)
    for row, value in (pair for x in points.values() for pair in x.items()):
        _check_row(f'{where} has {row!r}', row, rows)
        if value is not None and not (_is(value, float) and isfinite(value)):
            raise FGCError(f'{where} has {row}: {value!r}; give a number.')
        if (label is None) != (value is None):
            raise FGCError(
                f'{where} has label={label!r} and {row}: {value!r}; give a '
                'label and a number for every row, or neither for an axis '
                'of pruned MACs.'
            )
    return Axis(label, points)


def _is_line(line: object) -> bool:
    rows = isinstance(line, list) and all(isinstance(x, str) for x in line)
    return rows or isinstance(line, dict)


def _check_row(what: str, row: object, rows: list[str]) -> None:
    if row not in rows:
        raise FGCError(
            f'{what}, which is not a row; choose among {", ".join(rows)}.'
        )
