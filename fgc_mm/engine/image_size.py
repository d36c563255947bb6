"""The image size of a config's test pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from fgc_mm.type_name import type_name

# Transforms that set the size, and the argument that has it: a number, or a
# pair in the given order. Transforms that set the shorter side are assumed to
# get square images.
WIDTH_FIRST = {
    'Resize': 'scale',
    'CenterCrop': 'crop_size',
    'Pad': 'size',
}
HEIGHT_FIRST = {
    'ResizeEdge': 'scale',
    'RandomCrop': 'crop_size',
    'RandomResizedCrop': 'scale',
    'torchvision/Resize': 'size',
    'torchvision/CenterCrop': 'size',
    'torchvision/RandomCrop': 'size',
    'torchvision/RandomResizedCrop': 'size',
}


def config_image_size(cfg: Config) -> tuple[int, int] | None:
    """(H, W) after the test or validation pipeline, if it sets a size."""
    for name in ('test_dataloader', 'val_dataloader'):
        steps = pipeline_of((cfg.get(name) or {}).get('dataset') or {})
        if steps:
            return pipeline_size(steps)
    return None


def pipeline_of(dataset: Mapping[str, Any]) -> Sequence[Any]:
    """The pipeline in a data set's config, or of the first it wraps."""
    part: Any = dataset
    while isinstance(part, Mapping):
        steps = part.get('pipeline')
        if isinstance(steps, Sequence):
            return steps
        wrapped = part.get('datasets')
        part = wrapped[0] if wrapped else part.get('dataset')
    return ()


def pipeline_size(steps: Sequence[Any]) -> tuple[int, int] | None:
    """(H, W) after a pipeline; ``None`` if it sets no size."""
    size = None
    for step in steps:
        kind = type_name(step) if isinstance(step, dict) else ''
        if kind == 'Pad' and step.get('size') is None:
            continue
        if kind in WIDTH_FIRST:
            pair = _pair(step.get(WIDTH_FIRST[kind]))
            size = pair and pair[::-1]
        elif kind in HEIGHT_FIRST:
            size = _pair(step.get(HEIGHT_FIRST[kind]))
    return size


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Sequence) and len(size) == 1:
        size = size[0]  # torchvision: the shorter side
    if isinstance(size, int):
        return size, size
    if not isinstance(size, Sequence) or len(size) != 2:
        return None
    return size[0], size[1]
