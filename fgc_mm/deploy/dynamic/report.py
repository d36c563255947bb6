"""What a dynamic model does, and why, as a dict."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from fgc_mm.deploy.dynamic.dynamic_plan import DynamicPlan

REPORT_FIELDS = (
    'backend',
    'threads',
    'image_shape',
    'batch',
    'executor',
    'executor_why',
)


def dynamic_report(
    plan: DynamicPlan | None,
    build: str,
    precision: str,
    shapes: Collection[tuple[int, ...]],
) -> dict[str, Any]:
    """How every site is executed, and why.

    Args:
        plan: Of the calibration; ``None`` before it.
        build: Of the kernel, if it is used.
        precision: In which the program computes.
        shapes: (C, H, W) of the images that the model has seen.
    """
    if plan is None:
        return {'sites': {}, 'notes': ['there is no plan yet']}
    report = {name: getattr(plan, name) for name in REPORT_FIELDS}
    report['batch_ms'] = dict(plan.batch_ms)
    report['precision'] = precision
    if plan.backend == 'kernel':
        report['build'] = build
    report['sites'] = {
        name: dict(vars(site)) for name, site in plan.sites.items()
    }
    report['notes'] = _notes(plan, shapes)
    return report


def _notes(
    plan: DynamicPlan, shapes: Collection[tuple[int, ...]]
) -> list[str]:
    notes = []
    for shape in sorted({*shapes} - {tuple(plan.image_shape)}):
        notes.append(
            f'images of size {"x".join(map(str, shape))} were not in the '
            'calibration: results are correct, but whether skipping is '
            'faster was measured at '
            f'{"x".join(map(str, plan.image_shape))}.'
        )
    if torch.get_num_threads() != plan.threads:
        notes.append(
            f'{torch.get_num_threads()} threads are used, but the '
            f'calibration used {plan.threads}.'
        )
    return notes
