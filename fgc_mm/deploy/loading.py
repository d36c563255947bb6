"""Loading a config's trained model, and its preprocessed images."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import class_of
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.whole_checkpoint import load_whole


def build_model(cfg: Config) -> ImageClassifier:
    """The config's model without weights, in evaluation.

    Raises:
        FGCError: The config has no model.
    """
    if cfg.get('model') is None:
        raise FGCError(
            f'{cfg.filename} has no model; give a config that tools/train.py '
            'can run.'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    settings = cfg.model.to_dict()
    settings.pop('init_cfg', None)  # the checkpoint has the weights
    settings.pop('distillation', None)  # only needed in training
    preprocessor = cfg.get('data_preprocessor')
    if preprocessor is not None:
        settings.setdefault('data_preprocessor', preprocessor.to_dict())
    model = MMPRETRAIN_MODELS.build(settings)
    model.eval()
    return model


def build_trained(
    cfg: Config, checkpoint: str, gated: bool = True
) -> ImageClassifier:
    """The config's model with a checkpoint's weights, in evaluation.

    Args:
        cfg: The config.
        checkpoint: A file; all weights must be there, with the same shapes.
        gated: Refuse a model without gates.

    Raises:
        FGCError: No model, no gates, or a checkpoint of another config.
    """
    state = read_checkpoint(checkpoint)
    model = build_model(cfg)
    backbone = getattr(model, 'backbone', None)
    if gated and not isinstance(backbone, GatedBackbone):
        raise FGCError(
            f'the model of {cfg.filename} has no gates; give the config of a '
            'gated one (fgc_mm.GatedBackbone).'
        )
    load_whole(model, state.get('state_dict', state), checkpoint)
    return model


def images_of(
    cfg: Config,
    model: ImageClassifier,
    count: int,
    split: str = 'test',
    batch_size: int = 32,
) -> Iterator[Tensor]:
    """Preprocessed images of a config's data set.

    Taken at even distances from the whole set, which is often sorted by
    class, with the test pipeline.

    Args:
        cfg: The config.
        model: Its model, for the data preprocessor.
        count: Number of images; all, if there are fewer.
        split: ``'test'`` or ``'train'``.
        batch_size: Images in a batch.

    Yields:
        (batch_size, 3, H, W); the last batch may be smaller.

    Raises:
        FGCError: No such data, an empty set, or ``count`` below one.
    """
    if count < 1:
        raise FGCError(
            f'{count} images are requested, but statistics, timings and '
            'comparisons need at least one; ask for a positive number.'
        )
    dataset = build_dataset(cfg, split)
    if not len(dataset):
        raise FGCError(
            f'the {split} set of {cfg.filename} has no image to run the '
            'model on; check data_root and data_prefix.'
        )
    return _batches(dataset, model, min(count, len(dataset)), batch_size)


def _batches(
    dataset: Any, model: ImageClassifier, count: int, batch_size: int
) -> Iterator[Tensor]:
    picked = [number * len(dataset) // count for number in range(count)]
    for start in range(0, count, batch_size):
        chosen = picked[start : start + batch_size]
        data = pseudo_collate([dataset[index] for index in chosen])
        with torch.no_grad():
            images = model.data_preprocessor(data, False)['inputs']
        yield images


def build_dataset(cfg: Config, split: str = 'test') -> Any:
    """A config's data set, with the test pipeline.

    Training images are not augmented.

    Raises:
        FGCError: The config has no data loader for the split or the test.
    """
    loaders = [f'{split}_dataloader', 'test_dataloader']
    for name in loaders:
        if cfg.get(name) is None:
            raise FGCError(
                f'{cfg.filename} has no {name}, so there are no images to '
                'run the model on; add one.'
            )
    settings, test = (cfg[name].dataset.to_dict() for name in loaders)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    _as_in_test(settings, ChainMap(*_with_wrapped(test)))
    return DATASETS.build(settings)


def test_pipeline(cfg: Config) -> list[Any]:
    """The steps of a config's test set, or of the set that it wraps."""
    dataset = cfg.test_dataloader.dataset.to_dict()
    return ChainMap(*_with_wrapped(dataset)).get('pipeline') or []


def _wrapped(settings: dict) -> list[dict]:
    """The settings of the sets that a data set wraps."""
    parts = settings.get('dataset'), *settings.get('datasets', ())
    return [part for part in parts if isinstance(part, dict)]


def _with_wrapped(settings: dict) -> list[dict]:
    """A data set's settings, then those of the sets that it wraps."""
    below = map(_with_wrapped, _wrapped(settings))
    return [settings, *chain.from_iterable(below)]


def _as_in_test(
    settings: dict, tested: Mapping[str, Any], has_pipeline: bool = False
) -> None:
    """Replace the pipelines and augmentations of a data set and its parts.

    A part needs no pipeline if a set that wraps it has one.
    """
    has_pipeline |= 'pipeline' in settings
    wrapped = _wrapped(settings)
    if 'pipeline' in tested and (
        'pipeline' in settings or not (wrapped or has_pipeline)
    ):
        settings['pipeline'] = tested['pipeline']
    kind = class_of(settings, DATASETS)
    for augmentation in getattr(kind, 'AUGMENTATIONS', ()):
        settings[augmentation] = tested.get(augmentation, 0)
    for part in wrapped:
        _as_in_test(part, tested, has_pipeline)
