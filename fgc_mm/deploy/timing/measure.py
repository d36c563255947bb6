"""Times of all variants of a network, with the ratios of their MACs."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.deploy.timing.interleaved_times import Times, interleaved_times
from fgc_mm.deploy.timing.macs_ratios import (
    mask_repeat_rate,
    masks_of,
    site_macs_ratios,
)
from fgc_mm.deploy.timing.step_times import grouped, step_times
from fgc_mm.deploy.timing.variants import BenchmarkVariant
from fgc_mm.functional import macs_per_image
from fgc_mm.models import build_macs_table

REPORTED = ('executed', 'why', 'dynamic_ms', 'dense_ms', 'plain_ms')
# the part of the median time beyond the steps: Python, and more cache misses
# than when one step is repeated
CALLS = 'calls, cold caches'


def measure(
    model: ImageClassifier,
    variants: list[BenchmarkVariant],
    images: Tensor,
    batch: int,
    rounds: int,
) -> dict[str, Any]:
    """Times of every variant with the current number of threads.

    Args:
        model: The gated classifier.
        variants: The networks that are timed.
        images: (N, 3, H, W).
        batch: Images of a batch; a last, smaller one is left out.
        rounds: How often every batch is run.

    Returns:
        For JSON: ``threads``, ``best_dense``, ``rows`` (a variant each),
        ``sites``, ``notes``, ``profile`` and ``masks_seen_before``.
    """
    for variant in variants if batch > 1 else ():
        if variant.name.startswith('gathered') and variant.run is not None:
            variant.run, variant.why_not = None, 'takes one image at a time'
    runs = {v.name: v.run for v in variants if v.run is not None}
    batches = [b for b in images.split(batch) if len(b) == batch]
    times = interleaved_times(runs, batches, rounds)
    masks = masks_of(model, images.split(16))
    macs_ratios = _macs_ratios(model, variants, images, masks)
    dense = [v.name for v in variants if v.kind == 'dense' and v.name in runs]
    best = min(dense, key=lambda name: times[name].median)
    dynamic = next((v.model for v in variants if v.name == 'dynamic'), None)
    report = {} if dynamic is None else dynamic.dynamic_report()
    return dict(
        threads=torch.get_num_threads(),
        best_dense=best,
        rows=[_row(v, times, macs_ratios, best) for v in variants],
        sites=_site_rows(model, report.get('sites', {}), images, masks),
        notes=report.get('notes', []),
        profile=_profile(dynamic, images, times),
        masks_seen_before=mask_repeat_rate(masks),
    )


def _row(
    variant: BenchmarkVariant,
    times: dict[str, Times],
    macs_ratios: dict[str, float],
    best: str,
) -> dict[str, Any]:
    name = variant.name
    row = dict(name=name, kind=variant.kind, why_not=variant.why_not)
    if variant.run is None:
        return row
    taken = times[name]
    time_ratio = times[best].median / taken.median
    return row | dict(
        ms=taken.median,
        ms_low=taken.low,
        ms_high=taken.high,
        count=taken.count,
        macs_ratio=macs_ratios[name],
        time_ratio=time_ratio,
        over_eager=times['dense, eager'].median / taken.median,
        # bfloat16 is faster than the best dense network without fewer MACs
        noise=time_ratio > macs_ratios[name]
        and name != best
        and not name.endswith('bfloat16'),
    )


def _macs_ratios(
    model: ImageClassifier,
    variants: list[BenchmarkVariant],
    images: Tensor,
    masks: list[Tensor],
) -> dict[str, float]:
    """Dense MACs over the MACs that each variant computes."""
    shape = tuple(images.shape[1:])
    table = model.macs_table(shape)
    open_macs = float(macs_per_image(table, masks).mean())
    left = dict.fromkeys(('dynamic', 'both', 'compact'), open_macs)
    for row in variants:
        if row.name == 'compact, eager' and row.model is not None:
            small = row.model.macs_table(shape)
            left['compact'] = small.dense + small.gates
        if row.name == 'static, eager' and row.model is not None:
            static = build_macs_table(PlainForward(row.model), shape)
            left['static'] = static.dense
    return {
        row.name: table.dense / left.get(row.kind, table.dense)
        for row in variants
    }


def _site_rows(
    model: ImageClassifier,
    reports: dict[str, dict[str, Any]],
    images: Tensor,
    masks: list[Tensor],
) -> list[dict[str, Any]]:
    """Ratios of MACs and of time of every site of the dynamic network."""
    table = model.macs_table(tuple(images.shape[1:]))
    return [
        dict(
            site=name,
            channels=table.channels[index],
            keep_ratio=float((masks[index] != 0).double().mean()),
            macs_ratio=macs_ratio,
            time_ratio=_time_ratio(reports.get(name, {})),
            **{key: reports.get(name, {}).get(key) for key in REPORTED},
        )
        for index, (name, macs_ratio) in enumerate(
            zip(table.sites, site_macs_ratios(table, masks), strict=True)
        )
    ]


def _time_ratio(site: dict[str, Any]) -> float | None:
    """Plain time over that of the chosen execution, where both are known."""
    if not (site.get('dynamic_ms') and site.get('plain_ms')):
        return None
    chosen = dict(dynamic='dynamic_ms', dense='dense_ms')[site['executed']]
    return site['plain_ms'] / site[chosen]


def _profile(
    model: Any, images: Tensor, times: dict[str, Times]
) -> dict[str, Any]:
    """Times of the dynamic network's steps, single and in groups."""
    steps = [] if model is None else step_times(model, images[:8])
    if not steps:
        return {}
    groups = grouped(steps)
    rest = times['dynamic'].median - sum(groups.values())
    return dict(groups=groups | {CALLS: rest}, steps=steps)
