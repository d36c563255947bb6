"""From the command line to the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..deploy.compaction.importances import IMPORTANCES
from ..engine import command_line
from ..engine.scaled_schedule import scale_epochs
from ..errors import FGCError
from .run import Method, Run
from .start import check_start

RECIPE = 'model', 'optim_wrapper', 'param_scheduler', 'train_cfg'
# These fetch what is missing.
DOWNLOADING = {'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'}


@dataclass(frozen=True)
class Settings:
    """What all runs share.

    Attributes:
        seeds: One run each.
        folder: Where everything goes.
        epochs: For all; None for each config's own.
        options: ``--cfg-options``, read.
        raw_options: The same as they were typed.
        pruning_ratio: Of static pruning.
    """

    seeds: Sequence[int]
    folder: Path
    epochs: int | None
    options: dict[str, Any]
    raw_options: tuple[str, ...]
    pruning_ratio: float


def plan(
    entries: Sequence[str],
    settings: Settings,
    pretrain: str | None = None,
    pretrain_epochs: int | None = None,
) -> list[Run]:
    """All runs, those that others start from first, then seed by seed.

    Args:
        entries: ``CONFIG`` or ``IMPORTANCE:CONFIG``.
        settings: What all runs share.
        pretrain: A config that is trained first, once per seed: a dense
            one, or the first stage of gated ones.
        pretrain_epochs: For how long.

    Raises:
        FGCError: A config or data set is missing, two methods have one name,
            a seed is given twice, static pruning has no dense model, a
            method cannot start from ``pretrain``, or the folder holds runs
            of another recipe.
    """
    _check(settings, pretrain, pretrain_epochs)
    methods = [read_method(entry, settings) for entry in entries]
    starts: dict[int, Run] = {}
    if pretrain is not None:
        name = f'start_{Path(pretrain).stem}'
        first = read_method(pretrain, settings, pretrain_epochs, name)
        methods.append(first)
        starts = {s: _run(first, s, settings) for s in settings.seeds}
        check_start(first, methods[:-1])
    _check_methods(methods, pretrain)
    runs = [*starts.values()] + [
        _run(method, seed, settings, starts.get(seed))
        for seed in settings.seeds
        for method in methods[: len(entries)]
    ]
    for run in runs:
        run.claim()
    return runs


def read_method(
    entry: str,
    settings: Settings,
    epochs: int | None = None,
    name: str | None = None,
) -> Method:
    """The method that an entry of the command line names."""
    importance, path = split_entry(entry)
    cfg = command_line.load_config(path)
    own = (cfg.get('train_cfg') or {}).get('max_epochs')
    epochs = epochs or settings.epochs
    if epochs or not own:
        cfg = scale_epochs(cfg, epochs or 1)  # refuses what has no epochs
    command_line.override(cfg, settings.options)
    check_data(cfg, path)
    recipe = {key: cfg.to_dict().get(key) for key in RECIPE}
    recipe['epochs'] = cfg.train_cfg.max_epochs
    recipe['batch_size'] = cfg.train_dataloader.get('batch_size')
    recipe['images'] = _images(cfg)
    ratio = settings.pruning_ratio if importance else 0.0
    if importance:
        recipe.update(importance=importance, pruning_ratio=ratio)
    return Method(
        name=name or _name(importance, Path(path).stem),
        config=Path(path),
        epochs=cfg.train_cfg.max_epochs,
        scaled=bool(epochs),
        options=settings.raw_options,
        recipe=recipe,
        data=str(cfg.train_dataloader.dataset.type).rpartition('.')[2],
        importance=importance,
        pruning_ratio=ratio,
    )


def split_entry(entry: str) -> tuple[str | None, str]:
    """(importance or None, path of the config)."""
    importance, colon, path = entry.partition(':')
    if not colon or Path(entry).is_file():
        return None, entry
    if importance not in IMPORTANCES:
        raise FGCError(
            f'{entry} asks for static pruning by {importance!r}, which is '
            f'unknown; choose among {", ".join(IMPORTANCES)}.'
        )
    return importance, path


def check_data(cfg: Config, path: str) -> None:
    """Refuses a data set that is not where the config says.

    Raises:
        FGCError: It is missing, and its class downloads nothing.
    """
    for loader in ('train_dataloader', 'test_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset')
        if dataset is None:
            raise FGCError(
                f'{path} has no {loader}: a comparison trains and tests; '
                'give a config with both.'
            )
        root = dataset.get('data_root')
        if root and '://' not in root and dataset.type not in DOWNLOADING:
            prefix = dataset.get('data_prefix', '')
            folder = Path(root, prefix if isinstance(prefix, str) else '')
            if not folder.is_dir():
                raise FGCError(
                    f'{folder}, the data set of {path}, is no folder; put it '
                    f'there, or say where it is: --cfg-options '
                    f'{loader}.dataset.data_root=...'
                )


def _check(
    settings: Settings, pretrain: str | None, pretrain_epochs: int | None
) -> None:
    for seed in settings.seeds:
        if settings.seeds.count(seed) > 1:
            raise FGCError(
                f'seed {seed} is given twice: its second run would be the '
                'first one again; give different --seeds.'
            )
    if not 0 < settings.pruning_ratio < 1:
        raise FGCError(
            f'--pruning-ratio {settings.pruning_ratio} is no share of the '
            'MACs; give a number between 0 and 1, such as 0.55.'
        )
    if pretrain is None and pretrain_epochs is not None:
        raise FGCError(
            f'--pretrain-epochs {pretrain_epochs} has nothing to train; add '
            '--pretrain DENSE_CONFIG.'
        )


def _check_methods(methods: Sequence[Method], pretrain: str | None) -> None:
    names = [method.name for method in methods]
    for method in methods:
        if names.count(method.name) > 1:
            raise FGCError(
                f'{names.count(method.name)} configs are called '
                f'{method.name}, which is the name of a row and of a folder; '
                'rename one, or leave it out.'
            )
        if method.importance and pretrain is None:
            raise FGCError(
                f'{method.importance}:{method.config} has nothing to prune: '
                'static pruning starts from a trained dense model; add '
                '--pretrain DENSE_CONFIG.'
            )


def _run(
    method: Method, seed: int, settings: Settings, start: Run | None = None
) -> Run:
    folder = settings.folder / 'runs' / method.name / f'seed{seed}'
    return Run(method, seed, folder, start)


def _name(importance: str | None, stem: str) -> str:
    return (
        f'{importance}_{stem.removeprefix("dense_")}' if importance else stem
    )


def _images(cfg: Config) -> dict[str, Any]:
    """The training set, wherever it lies."""
    dataset = cfg.train_dataloader.dataset.to_dict()
    return {k: v for k, v in dataset.items() if k != 'data_root'}
