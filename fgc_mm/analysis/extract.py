"""One evaluation pass over a data set, recording the gates' outputs."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import DataLoader

from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from ..deploy.loading import build_trained
from ..errors import FGCError
from ..functional import global_average_pool
from ..models import GatedImageClassifier
from ..sites import GateRecord
from .content_key import content_key
from .options import chosen_sites
from .pass_writer import PassWriter
from .stored_pass import StoredPass, array_name

Log = Callable[[str], None]


def load_or_run_pass(
    cfg: Config,
    checkpoint: str,
    name: str,
    dataset: Any,
    indices: Sequence[int],
    split: str,
    folder: Path,
    log: Log = print,
    wanted: Sequence[str] = (),
) -> StoredPass:
    """The pass of a checkpoint, loaded from disk if it exists.

    Args:
        cfg: The checkpoint's config.
        checkpoint: A file.
        name: Name of the checkpoint in figures and tables.
        dataset: The images, with the test pipeline.
        indices: Ascending indices of the images to use.
        split: Name of the data set's split, for the report.
        folder: Folder of the stored passes.
        log: Prints a line per pass.
        wanted: Patterns of sites, which are checked before the pass.

    Raises:
        FGCError: The checkpoint has no gates or belongs to another config;
            a pattern matches no site; an image has no label; a gate outputs
            nan.
    """
    check_gated(checkpoint)
    key = content_key(cfg, checkpoint, dataset, indices)
    stem = re.sub(r'[^\w.-]+', '_', name)
    target = folder / f'{stem}-{key[:16]}'
    # a pass with the same key may be stored under another name
    for known in (target, *sorted(folder.glob(f'*-{key[:16]}'))):
        found = StoredPass.open(known, name)
        if found is not None:
            log(f'{name}: loaded from {known}')
            return found
    model = build_classifier(cfg, checkpoint)
    names = [site.name for site in model.backbone.sites]
    chosen_sites(names, wanted)
    writer = PassWriter(target, len(indices))
    done = f', {writer.done} already processed' if writer.done else ''
    log(f'{name}: one pass over {len(indices)} images{done}')
    _run(model, cfg, dataset, indices, writer)
    header = dict(
        sites=names,
        classes=class_names(dataset, model),
        split=split,
        images=len(indices),
        key=key,
    )
    writer.finish(header)
    stored = StoredPass.open(target, name)
    assert stored is not None  # it has just been written
    return stored


def check_gated(checkpoint: str) -> None:
    """Check that a checkpoint contains gates.

    Raises:
        FGCError: It has no gates, is missing, or cannot be read.
    """
    state = read_checkpoint(checkpoint)
    weights = state.get('state_dict', state)
    if not any('gates.' in key for key in weights):
        raise FGCError(
            f'{checkpoint} has no gates: none of its {len(weights)} weights '
            'belongs to one, but the analysis needs gates; give a checkpoint '
            'that was trained with a gated config.'
        )


def build_classifier(cfg: Config, checkpoint: str) -> GatedImageClassifier:
    """The trained classifier in eval mode, on a GPU if available.

    Raises:
        FGCError: The model is not a GatedImageClassifier, or the checkpoint
            belongs to another config.
    """
    model = build_trained(cfg, checkpoint)
    if not isinstance(model, GatedImageClassifier):
        raise FGCError(
            f'the model of {cfg.filename} is a {type(model).__name__}, which '
            'does not count MACs per image; give a config of a '
            'fgc_mm.GatedImageClassifier.'
        )
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def class_names(dataset: Any, model: GatedImageClassifier) -> list[str]:
    """One name per class; class indices where the data set has no names."""
    count = getattr(model.head, 'num_classes', 0)
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return [*map(str, names), *map(str, range(len(names), count))]


def image_batches(
    model: GatedImageClassifier,
    cfg: Config,
    dataset: Any,
    indices: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Preprocessed batches of the images with these indices, in order."""
    loader = DataLoader(
        dataset,
        batch_size=cfg.test_dataloader.get('batch_size', 1),
        sampler=list(indices),
        num_workers=cfg.test_dataloader.get('num_workers', 0),
        collate_fn=pseudo_collate,
    )
    for data in loader:
        yield model.data_preprocessor(data, False)


def _run(
    model: GatedImageClassifier,
    cfg: Config,
    dataset: Any,
    indices: Sequence[int],
    writer: PassWriter,
) -> None:
    left = indices[writer.done :]
    try:
        for data in image_batches(model, cfg, dataset, left):
            with torch.no_grad():
                found, records = model.predict_gated(
                    data['inputs'], data['data_samples'], True
                )
            first = writer.done
            rows = np.asarray(indices[first : first + len(found)])
            writer.write(_rows(found, records, rows))
    finally:
        writer.save_progress()


def _rows(
    samples: Sequence[DataSample],
    records: Sequence[GateRecord],
    indices: np.ndarray,
) -> dict[str, np.ndarray]:
    """The arrays of one batch."""
    rows: dict[str, Any] = dict(
        indices=indices,
        labels=np.array([_label(sample) for sample in samples]),
        predictions=np.array([int(s.pred_label) for s in samples]),
        scores=torch.stack([s.pred_score for s in samples]),
        macs=np.array([float(s.macs) for s in samples]),
        dense_macs=np.array([float(s.macs_table.base()) for s in samples]),
    )
    for number, record in enumerate(records):
        assert record.activation is not None  # keep_activation
        pooled = global_average_pool(record.activation)
        scales_channels = record.saliency is not None
        arrays = dict(
            features=pooled.float(),
            logits=record.logits.float(),
            probs=record.probs.float(),
            mask=record.mask.float() if scales_channels else record.mask != 0,
        )
        for kind, values in arrays.items():
            rows[array_name(kind, number)] = values
    return {
        name: values.cpu().numpy() if isinstance(values, Tensor) else values
        for name, values in rows.items()
    }


def _label(sample: DataSample) -> int:
    label = sample.get('gt_label', None)
    predicted = sample.get('pred_label', None)
    for found in (label, predicted):
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise FGCError(
                'an image of the data set does not have exactly one label '
                'and one predicted class, but the analysis needs them; give '
                'a labelled data set and a single-label classifier.'
            )
    return int(label)
