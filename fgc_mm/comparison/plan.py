"""Makes the runs of a comparison from its rows and settings."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from itertools import chain, count
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmpretrain.registry import METRICS, MODELS

from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override, read_options
from fgc_mm.registry import class_of
from fgc_mm.type_name import type_name

from ..config_files import config_file
from ..engine.scaled_schedule import scale_epochs
from ..errors import FGCError
from .entry import Entry, Start
from .last_checkpoint_check import check_last_checkpoint
from .ratio_options import drop_overridden, needs_planning, options_for_ratio
from .results import COST
from .run import IGNORED, Method, Run
from .start_check import check_start
from .stored_results import find_stored_result
from .study import Study

RECIPE = (
    'model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks',
    'data_preprocessor', 'load_from', 'auto_scale_lr', 'test_evaluator',
)  # fmt: skip
# how a data loader chooses the images of its batches
SAMPLING = 'sampler', 'batch_sampler', 'drop_last'
OPEN = 'fgc_mm.OpenGate'
MACS = COST[0].partition('/')[0]
# data sets that download missing files
DOWNLOADING = {'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'}


def plan(study: Study, folder: Path, results: Path | None = None) -> list[Run]:
    """All runs: first those from which others start, then seed by seed.

    Args:
        study: The rows and their settings.
        folder: Output folder.
        results: Folder of stored results, which are checked.

    Raises:
        FGCError: A config or data set is missing, two methods have one name,
            a seed is given twice, static pruning has no dense model, the
            pruning ratio of a method cannot be set, a method cannot start
            from the weights of its start, or the folder contains runs of
            another recipe.
    """
    _check_settings(study)
    runs = _all_runs(study, folder)
    for run in runs:
        _check_run(run)
    for run in runs:  # check all before writing any
        run.check_recipe()
        if results is not None:
            find_stored_result(run, results)
    for run in runs:
        run.write_recipe()
    return runs


def _check_run(run: Run) -> None:
    """Check that a run has the start or the teacher that it needs."""
    if run.start is not None:
        check_start(run.start.method, run.method)
    elif run.method.wants_teacher:
        raise FGCError(
            f'{run.method.config} has a distillation without a checkpoint, '
            'but no teacher is given; add teacher: ../NAME.py to its row of a '
            'plan, or --pretrain DENSE_CONFIG.'
        )
    if run.method.budget is not None and not run.loads_weights:
        raise FGCError(
            f'the ratio of {run.method.config} is planned on the dense '
            'network that its training starts from, but none is given; '
            'add --pretrain DENSE_CONFIG, or set the ratio.'
        )


def _all_runs(study: Study, folder: Path) -> list[Run]:
    """Starts, then the other rows seed by seed; each run once."""
    rows: dict[tuple[str, int], Run] = {}
    for entry in study.entries:
        method = read_method(entry, study)
        for seed in _seeds(entry, study):
            rows[entry.row, seed] = _run(method, seed, folder)
    starts = _starts(study, rows, folder)
    own = {id(run) for run in rows.values()}
    _check_names(
        study.entries, [run for run in starts.values() if id(run) not in own]
    )
    for entry in study.entries:
        for seed in _seeds(entry, study):
            rows[entry.row, seed].start = starts.get(
                (_start_of(entry, study), seed)
            )
    seeds = [*dict.fromkeys(seed for _, seed in rows)]
    later = sorted(rows.items(), key=lambda row: seeds.index(row[0][1]))
    runs = [*starts.values(), *(run for _, run in later)]
    return [*{run.name: run for run in runs}.values()]


def _start_of(entry: Entry, study: Study) -> Start | None:
    """The start of a row with its epochs, so that equal ones are one."""
    start = entry.start
    return start and replace(start, epochs=start.epochs or study.epochs)


def _starts(
    study: Study, rows: Mapping[tuple[str, int], Run], folder: Path
) -> dict[tuple[Start | None, int], Run]:
    """The runs from which others start, one per seed.

    A row that trains the same config from scratch, without options of its
    own, is used as such a run.
    """
    found: dict[tuple[Start | None, int], Run] = {}
    taken: set[str] = set()
    users = [(_start_of(entry, study), entry) for entry in study.entries]
    for start in dict.fromkeys(start for start, _ in users if start):
        method = _start_method(start, study)
        named = _named(method, taken)
        same = [e.row for e in study.entries if _trains(e, start, study)]
        seeds = [_seeds(e, study) for other, e in users if other == start]
        for seed in dict.fromkeys(chain(*seeds)):
            own = [rows[row, seed] for row in same if (row, seed) in rows]
            if own and own[0].method.recipe == method.recipe:
                found[start, seed] = own[0]
            else:
                found[start, seed] = _run(named, seed, folder)
                taken.add(named.name)
    return found


def _start_method(start: Start, study: Study) -> Method:
    entry = Entry(
        start.config,
        name=f'start_{Path(start.config).stem}',
        epochs=start.epochs,
    )
    return read_method(entry, replace(study, match_macs=False))


def _named(method: Method, taken: Collection[str]) -> Method:
    """The method under a name that no other start has."""
    names = chain(
        [method.name, f'{method.name}_{method.epochs}e'],
        (f'{method.name}_{number}' for number in count(2)),
    )
    return replace(method, name=next(n for n in names if n not in taken))


def _trains(entry: Entry, start: Start, study: Study) -> bool:
    """Whether a row trains this start from scratch."""
    plain = not (entry.options or entry.importance or entry.start)
    same = (_file(entry.config), entry.epochs or study.epochs)
    return plain and same == (_file(start.config), start.epochs)


def _file(config: str) -> Path:
    return Path(config_file(config)).resolve()


def _leave_out_constructor(recipe: dict[str, Any]) -> None:
    """Joined parameter groups do not change the training: ignore them."""
    wrapper = recipe.get('optim_wrapper') or {}
    if wrapper.get('constructor') == 'fgc_mm.JoinedGroupsConstructor':
        del wrapper['constructor']


def read_method(entry: Entry, study: Study) -> Method:
    """The method of a row."""
    path, importance = entry.config, entry.importance
    cfg = load_config(path)
    own = (cfg.get('train_cfg') or {}).get('max_epochs')
    epochs = entry.epochs or study.epochs
    if epochs or not own:
        cfg = scale_epochs(cfg, epochs or 1)  # error if it has no epochs
    options = (*study.options, *entry.options)
    override(cfg, read_options(options))
    check_data(cfg, path)
    check_last_checkpoint(cfg, path)
    check_macs(cfg, path)
    pruning_ratio = _pruning_ratio(entry, study)
    budget = None
    if study.match_macs and importance is None:
        for_ratio = drop_overridden(
            options_for_ratio(cfg, pruning_ratio), entry.options
        )
        override(cfg, read_options(for_ratio))
        options += for_ratio
        if needs_planning(cfg, entry.options):
            budget = round(1 - pruning_ratio, 6)
    recipe = {key: cfg.to_dict().get(key) for key in RECIPE}
    _leave_out_constructor(recipe)
    recipe['epochs'] = cfg.train_cfg.max_epochs
    recipe['batch_size'] = cfg.train_dataloader.get('batch_size')
    recipe['loader'] = {
        key: cfg.train_dataloader[key]
        for key in SAMPLING
        if key in cfg.train_dataloader
    }
    recipe['images'] = _images(cfg.train_dataloader)
    recipe['test_images'] = _images(cfg.test_dataloader)
    static_ratio = pruning_ratio if importance else 0.0
    if importance:
        recipe.update(importance=importance, pruning_ratio=static_ratio)
    if budget is not None:
        recipe.update(budget=budget)
    return Method(
        name=entry.row,
        config=Path(config_file(path)),
        epochs=cfg.train_cfg.max_epochs,
        scaled=bool(epochs),
        options=options,
        recipe=recipe,
        data=type_name(cfg.train_dataloader.dataset),
        importance=importance,
        pruning_ratio=static_ratio,
        budget=budget,
        sweeps=has_threshold(cfg),
        loads_start=entry.loads_start,
    )


def has_threshold(cfg: Config) -> bool:
    """Whether a config's gates compare probabilities with a threshold."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    gate = backbone.get('gate')
    kind = class_of(gate, MODELS) if gate else None
    return kind is not None and 'threshold' in signature(kind).parameters


def check_data(cfg: Config, path: str) -> None:
    """Checks that the data sets of a config exist.

    Raises:
        FGCError: One is missing, and its class downloads nothing.
    """
    for loader in ('train_dataloader', 'test_dataloader'):
        key, dataset = _innermost(loader, cfg.get(loader) or {})
        if dataset is None:
            raise FGCError(
                f'{path} has no {loader}: a comparison trains and tests; '
                'give a config with both.'
            )
        root = dataset.get('data_root')
        downloads = type_name(dataset) in DOWNLOADING
        if root and '://' not in root and not downloads:
            prefix = dataset.get('data_prefix', '')
            folder = Path(root, prefix if isinstance(prefix, str) else '')
            if not folder.is_dir():
                raise FGCError(
                    f'{folder}, the data set of {path}, is not a folder; put '
                    'the data set there, or set its folder with --cfg-options '
                    f'{key}.data_root=...'
                )


def check_macs(cfg: Config, path: str) -> None:
    """Checks that the test of a network with gates measures its MACs.

    Raises:
        FGCError: It does not, and the table would show it as a dense one.
    """
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    given = cfg.get('test_evaluator') or []
    if isinstance(given, Mapping):
        given = given.get('metrics', [given])
    metrics = given if isinstance(given, Sequence) else [given]
    measured = any(_prefix(metric) == MACS for metric in metrics)
    if closes_channels(backbone) and not measured:
        raise FGCError(
            f'{path} has gates, but no DynamicMACs in test_evaluator: the '
            "table compares MACs; add dict(type='fgc_mm.DynamicMACs') to it."
        )


def closes_channels(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone has gates, and these are not all open."""
    gate = backbone.get('gate')
    return gate is not None and class_of(gate, MODELS) is not MODELS.get(OPEN)


def _prefix(metric: Mapping[str, Any]) -> str | None:
    """What the names of a metric's values begin with."""
    kind = class_of(metric, METRICS)
    return metric.get('prefix') or getattr(kind, 'default_prefix', None)


def _innermost(key: str, settings: Mapping[str, Any]) -> tuple[str, Any]:
    """Key and config of the innermost data set, which reads files.

    The config is None if there is no data set.
    """
    dataset = None
    while isinstance(settings.get('dataset'), Mapping):
        key, settings = f'{key}.dataset', settings['dataset']
        dataset = settings
    return key, dataset


def _check_seeds(study: Study) -> None:
    for entry in study.entries:
        seeds = _seeds(entry, study)
        for seed in seeds:
            if not 0 <= seed < 2**32:
                raise FGCError(
                    f'seed {seed} is out of range; give a whole number from '
                    '0 to 4294967295.'
                )
            if seeds.count(seed) > 1:
                raise FGCError(
                    f'seed {seed} is given twice, but two runs with one seed '
                    'are equal; give different --seeds.'
                )


def _check_settings(study: Study) -> None:
    _check_seeds(study)
    for ratio in (
        study.pruning_ratio,
        *(_pruning_ratio(entry, study) for entry in study.entries),
    ):
        if not 0 < ratio < 1:
            raise FGCError(
                f'--pruning-ratio {ratio} is not a fraction of the MACs; '
                'give a number between 0 and 1, such as 0.55.'
            )
    for entry in study.entries:
        if entry.importance and not entry.pretrains:
            raise FGCError(
                f'{entry.importance}:{entry.config} has nothing to prune: '
                'static pruning starts from a trained dense model; add '
                '--pretrain DENSE_CONFIG.'
            )


def _check_names(entries: Sequence[Entry], starts: Iterable[Run]) -> None:
    names = [entry.row for entry in entries]
    names += dict.fromkeys(run.method.name for run in starts)
    for name in names:
        if names.count(name) > 1:
            raise FGCError(
                f'{names.count(name)} rows are called {name}, but rows and '
                'their folders need different names; rename one config, or '
                'leave it out.'
            )


def _pruning_ratio(entry: Entry, study: Study) -> float:
    own = entry.pruning_ratio
    return study.pruning_ratio if own is None else own


def _seeds(entry: Entry, study: Study) -> tuple[int, ...]:
    return entry.seeds or study.seeds


def _run(method: Method, seed: int, folder: Path) -> Run:
    return Run(method, seed, folder / 'runs' / method.name / f'seed{seed}')


def _images(loader: Any) -> dict[str, Any]:
    """The config of a data set without its folders."""
    return _without_ignored(loader.dataset.to_dict())


def _without_ignored(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_ignored(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in IGNORED
    }
