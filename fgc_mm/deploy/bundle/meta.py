"""The metadata of a program file (JSON), see docs/runtime.md."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import DATASETS

from fgc_mm.deploy.bundle.preprocessing_settings import (
    innermost_dataset,
    preprocessing_settings,
)
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable, SitePositions
from fgc_mm.models.class_scores import independent_labels
from fgc_mm.registry import class_of
from fgc_mm.runtime.format import Program
from fgc_mm.version import __version__

Runs = tuple[tuple[int, int], ...]  # [first, count] of consecutive channels


def file_meta(
    cfg: Config,
    checkpoint: Mapping[str, Any],
    model: ImageClassifier,
    program: Program,
) -> dict[str, Any]:
    """The metadata of a gated classifier's program file.

    Args:
        cfg: The config.
        checkpoint: Contents of the checkpoint file.
        model: The classifier, in evaluation.
        program: Its program; outputs: logits, then logits and mask of every
            site.

    Raises:
        FGCError: The runtime does not support the test pipeline or the data
            preprocessor.
    """
    height, width = program.values[0].shape[1:]
    table = model.macs_table(program.values[0].shape)
    classes = program.values[program.outputs[0]].channels
    return dict(
        classes=_classes(cfg, checkpoint, classes),
        scores='sigmoid' if independent_labels(model.head) else 'softmax',
        preprocessing=preprocessing_settings(cfg, model, (height, width)),
        sites=_sites(program, table.sites, table.channels),
        macs=macs_settings(table),
        config=Path(cfg.filename or '').name,
        versions=dict(fgc_mm=__version__, torch=str(torch.__version__)),
    )


def _classes(
    cfg: Config, checkpoint: Mapping[str, Any], count: int
) -> list[str]:
    """Class names of the checkpoint or the test set; otherwise numbers."""
    meta = checkpoint.get('meta') or {}
    trained = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    dataset = innermost_dataset(cfg)
    own = getattr(class_of(dataset, DATASETS), 'METAINFO', None)
    for named in (trained, dataset, dataset.get('metainfo'), own):
        names = named.get('classes') if isinstance(named, Mapping) else None
        # a string is the path of a file with names
        if isinstance(names, (list, tuple)) and len(names) == count:
            return [str(name) for name in names]
    return [str(number) for number in range(count)]


def _sites(
    program: Program, names: Sequence[str], channels: Sequence[int]
) -> list[dict[str, Any]]:
    """Indices of the outputs that hold every site's logits and mask."""
    if len(program.outputs) != 1 + 2 * len(names):
        raise FGCError(
            f'the program has {len(program.outputs)} outputs for '
            f'{len(names)} sites, but it needs the logits and the mask of '
            'each site after the class logits; make the program with '
            'program_of.'
        )
    return [
        dict(name=name, channels=count, logits=first, output=first + 1)
        for name, count, first in zip(names, channels, itertools.count(1, 2))
    ]


def macs_settings(table: MACsTable) -> dict[str, Any]:
    """The ``macs`` entry: a network's table at the size of its images."""
    layers = table.counted()
    positions: dict[Runs, int] = {}
    return dict(
        dense=table.base(),
        fixed=sum(layer.dense for layer in layers if not layer.sites),
        layers=[
            [
                layer.unit,
                layer.in_channels,
                layer.out_channels,
                layer.groups,
                _site_positions(layer.in_sites, positions),
                _site_positions(layer.out_sites, positions),
            ]
            for layer in layers
            if layer.sites
        ],
        positions=list(positions),
    )


def _site_positions(
    sites: Sequence[SitePositions], positions: dict[Runs, int]
) -> list[tuple[int, int | None]]:
    """Each site with the index of its positions; layers may share an index."""
    found: list[tuple[int, int | None]] = []
    for site, channels in sites:
        index = None
        if channels is not None:
            index = positions.setdefault(_runs(channels), len(positions))
        found.append((site, index))
    return found


def _runs(channels: Sequence[int]) -> Runs:
    """``[first, count]`` for runs of consecutive channels, or of -1."""
    runs: list[tuple[int, int]] = []
    for position in map(int, channels):
        first, count = runs[-1] if runs else (position, 0)
        if position == (first + count if first >= 0 else -1):
            runs[-1:] = [(first, count + 1)]
        else:
            runs.append((position, 1))
    return tuple(runs)
