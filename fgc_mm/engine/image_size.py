"""The size of the images that a config tests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

# What sets both sides, and the argument that says to how many pixels.
SIZED = {'Resize': 'scale', 'CenterCrop': 'crop_size'}


def config_image_size(cfg: Config) -> tuple[int, int] | None:
    """(H, W) after the test pipeline (or the validation's), if it says.

    Args:
        cfg: Of a run.
    """
    for name in ('test_dataloader', 'val_dataloader'):
        steps = pipeline_of((cfg.get(name) or {}).get('dataset') or {})
        if steps:
            return _last_size(steps)
    return None


def pipeline_of(dataset: Mapping[str, Any]) -> Sequence[Any]:
    """The pipeline of a data set, or of the one that it wraps.

    Args:
        dataset: Its config.
    """
    part: Any = dataset
    while isinstance(part, Mapping):
        steps = part.get('pipeline')
        if isinstance(steps, Sequence):
            return steps
        part = part.get('dataset')
    return ()


def _last_size(steps: Sequence[Any]) -> tuple[int, int] | None:
    size = None
    for step in steps:
        kind = str(step.get('type', '')) if isinstance(step, dict) else ''
        if kind.rpartition('.')[2] in SIZED:
            size = _pair(step.get(SIZED[kind.rpartition('.')[2]]))
    return size


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, Sequence) or len(size) != 2:
        return None
    width, height = size
    return height, width
