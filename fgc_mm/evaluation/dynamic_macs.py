"""The FLOPs evaluator: MACs that are computed for each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from fgc_mm.errors import FGCError
from fgc_mm.evaluation.keep_ratio_table import render_sites, site_rows
from fgc_mm.functional.macs import MACsTable, macs_per_image
from fgc_mm.registry import METRICS

# countings used in publications, and the names of their metrics
PUBLISHED = {'fgc-pr': 'pruning_ratio_fgc_pr', 'ftwt': 'pruning_ratio_ftwt'}


@METRICS.register_module()
class DynamicMACs(BaseMetric):
    """MACs per image of a dynamic network, and statistics of its gates.

    Products are counted where torch computes them, including those of gates,
    classifier and attention (see docs/method.md). A closed channel removes
    its row of the producer's weights and its column of the consumer's, but no
    operation outside the forward of a conv or linear layer. The metrics are

    - ``mean``, ``p50``, ``p95`` and ``dense`` in MACs per image, where
      ``dense`` is the network without gates and before compaction;
    - ``pruning_ratio`` = 100 (1 - mean / dense), in percent;
    - ``keep_ratio``, the fraction of gated channels that are open;
    - only for comparison with published numbers, ``pruning_ratio_fgc_pr``
      (without the classifier) and ``pruning_ratio_ftwt`` (without classifier
      and gates, with residual sums counted as if they were masked).

    A table with one row per site is logged. If the gates output nan or inf
    for an image, all metrics except ``dense`` are nan, and a warning gives
    the number of such images.

    Args:
        collect_device: Device on which the results of all ranks are collected.
        prefix: Prefix of the metrics' names; default ``macs``.

    Raises:
        FGCError: The samples have no MACs, or were merged from several
            views of an image.
    """

    default_prefix = 'macs'

    def __init__(
        self, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device, prefix)
        self._table: MACsTable | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per image, so that padding can be removed."""
        for sample in data_samples:
            if 'macs_table' not in sample:
                raise FGCError(
                    'a prediction has no MACs; DynamicMACs needs a model of '
                    'type fgc_mm.GatedImageClassifier or fgc_mm.GatedModel.'
                )
            _refuse_merged(sample)
        table = self._table = data_samples[0]['macs_table']
        opened = torch.stack([s['gate_masks'] for s in data_samples])
        macs = [float(s['macs']) for s in data_samples]
        dense, published = table.base(), _published(table, opened)
        bases = [table.base(name) for name in PUBLISHED]
        packed = np.packbits(opened.numpy(), axis=1)
        self.results += [
            (cost, dense, counted, bases, row)
            for cost, counted, row in zip(macs, published, packed)
        ]

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Compute the metrics over all images of all ranks."""
        costs, full, published, bases, packed = zip(*results)
        macs, dense = np.array(costs), np.array(full)
        _warn_of_nan(macs)
        assert self._table is not None  # set with the first result
        channels = self._table.channels
        opened = np.unpackbits(np.stack(packed), axis=1, count=sum(channels))
        rows = site_rows(self._table.sites, channels, opened.mean(axis=0))
        MMLogger.get_current_instance().info('\n' + render_sites(rows))
        # nan where macs is nan
        counted = np.array(published) + 0 * macs[:, None]
        pruned = 100 * (1 - np.mean(counted, axis=0) / np.mean(bases, axis=0))
        return {
            'mean': float(macs.mean()),
            'dense': float(dense.mean()),
            'p50': float(np.percentile(macs, 50)),
            'p95': float(np.percentile(macs, 95)),
            'pruning_ratio': 100 * float(1 - macs.mean() / dense.mean()),
            'keep_ratio': float(opened.mean()) + 0 * float(macs.mean()),
            **dict(zip(PUBLISHED.values(), pruned.tolist())),
        }


def _published(table: MACsTable, opened: torch.Tensor) -> list[list[float]]:
    """MACs of each image by each published counting."""
    masks = opened.split(table.channels, dim=1)
    counts = [macs_per_image(table, masks, x) for x in PUBLISHED]
    return torch.stack(counts, dim=1).tolist()


def _warn_of_nan(macs: np.ndarray) -> None:
    count = int(np.isnan(macs).sum())
    if count:
        MMLogger.get_current_instance().warning(
            f'Gates output nan or inf for {count} of {len(macs)} images, so '
            'the means of the MACs are nan. Early in training the running '
            'statistics of norms may be inaccurate; if later validations also '
            'log this, lower the learning rate.'
        )


def _refuse_merged(sample: dict) -> None:
    # a merged prediction has a new score, but the gates of its first view
    if sample.get('gated_score') is not sample.get('pred_score'):
        raise FGCError(
            'a prediction was merged from several views of an image '
            '(test-time augmentation), but has the MACs of the first view '
            'only; test without --tta, or without DynamicMACs.'
        )
