"""A trained network with the masks of other images.

A network that needs masks chosen by image makes more errors with masks that
were chosen for other images. If its error stays the same with masks of any
other image, it does not need them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..deploy.changed_masks import changed_masks
from ..models import GatedImageClassifier
from ..sites import GateSite
from .extract import build_classifier, image_batches
from .stored_pass import StoredPass

Masks = Mapping[str, np.ndarray]  # (N, C) by the name of the site
OWN = 'its own'
SAME_CLASS = 'of an image of its class'
ANOTHER = 'of any other image'
FREQUENT = 'the most frequent ones'
MOST_ALONE = 0.1  # maximum fraction of images that are alone in their class


class ExchangedMasks(NamedTuple):
    """The network with masks of one kind.

    Attributes:
        masks: Which masks each image takes: ``OWN``, ``SAME_CLASS``,
            ``ANOTHER``, or ``FREQUENT`` (a channel is open for all images if
            more than half of them open it).
        accuracy: Fraction classified correctly.
        macs: Mean MACs per image.
        pruning_ratio: 1 - MACs / dense MACs.
    """

    masks: str
    accuracy: float
    macs: float
    pruning_ratio: float


def exchange_masks(
    cfg: Config,
    checkpoint: str,
    dataset: Any,
    stored: StoredPass,
    seed: int = 0,
) -> tuple[ExchangedMasks, ...]:
    """Run a network with its own and with exchanged masks.

    Each image takes all masks of one other image, so for images of one size
    the mean MACs stay the same. Masks include the factors of gates that scale
    channels.

    Args:
        cfg: The checkpoint's config.
        checkpoint: A file.
        dataset: The images of the pass.
        stored: The pass of this checkpoint.
        seed: Seed of the random choice of other images.

    Returns:
        A row per kind of masks. There is none for ``SAME_CLASS`` if more than
        a tenth of the images are alone in their class.
    """
    labels = np.asarray(stored.labels)
    masks = {name: stored.site_array('mask', name) for name in stored.sites}
    constant = {
        name: most_frequent(mask)[None] for name, mask in masks.items()
    }
    # the masks, and for each image the row that it takes
    kinds = {
        SAME_CLASS: (masks, partners(labels, seed)),
        ANOTHER: (masks, partners(np.zeros_like(labels), seed)),
        FREQUENT: (constant, np.zeros_like(labels)),
    }
    alone = kinds[SAME_CLASS][1] == np.arange(len(labels))
    if alone.mean() > MOST_ALONE:
        del kinds[SAME_CLASS]
    model = build_classifier(cfg, checkpoint)
    found = _run(model, cfg, dataset, stored.indices.tolist(), kinds)
    found = {OWN: (stored.predictions, stored.macs), **found}
    dense = float(stored.dense_macs.mean())
    return tuple(
        ExchangedMasks(
            kind,
            float(np.mean(predictions == labels)),
            float(np.mean(macs)),
            1 - float(np.mean(macs)) / dense,
        )
        for kind, (predictions, macs) in found.items()
    )


def partners(labels: np.ndarray, seed: int) -> np.ndarray:
    """Another image with the same label for each image; (N,) indices.

    Each image is the partner of exactly one image. An image that is alone
    with its label is its own partner.
    """
    random = np.random.default_rng(seed)
    found = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        found[members] = np.roll(members, 1)
    return found


def most_frequent(mask: np.ndarray) -> np.ndarray:
    """The constant mask (C,) of the masks (N, C) of all images.

    A channel that more than half of the images open has the mean of its
    factors over these images; all others are 0.
    """
    count = np.count_nonzero(mask, axis=0)
    factor = mask.sum(0, dtype=np.float64) / count.clip(1)
    return np.where(2 * count > len(mask), factor, 0)


def _run(
    model: GatedImageClassifier,
    cfg: Config,
    dataset: Any,
    indices: Sequence[int],
    kinds: Mapping[str, tuple[Masks, np.ndarray]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predictions and MACs (N,) of every kind of masks."""
    numbers: dict[str, list[tuple[int, float]]] = {kind: [] for kind in kinds}
    for data in image_batches(model, cfg, dataset, indices):
        # counted here, since it runs the model without given masks
        model.macs_table(tuple(data['inputs'].shape[1:]))
        for kind, (masks, rows) in kinds.items():
            first = len(numbers[kind])
            rows = rows[first : first + len(data['inputs'])]
            given = partial(_given_masks, masks, rows)
            with changed_masks(model.backbone, given), torch.no_grad():
                found, _ = model.predict_gated(
                    data['inputs'], [x.clone() for x in data['data_samples']]
                )
            numbers[kind] += [
                (int(x.pred_label), float(x.macs)) for x in found
            ]
    return {
        kind: (np.array([p for p, _ in rows]), np.array([m for _, m in rows]))
        for kind, rows in numbers.items()
    }


def _given_masks(
    masks: Masks, rows: np.ndarray, site: GateSite, mask: Tensor
) -> Tensor:
    return torch.tensor(masks[site.name][rows]).to(mask)
