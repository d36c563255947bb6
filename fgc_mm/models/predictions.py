"""Moves predictions to the host, and lets each own its memory."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

FIELDS = 'pred_score', 'pred_label', 'gt_label', 'gt_score'


def to_host(samples: Sequence[Any]) -> None:
    """Move a batch's labels and scores to the CPU, with one copy per field.

    Otherwise evaluators copy them image by image, and the host waits for
    each copy. Multi-task predictions are not moved.
    """
    if not all(type(sample) is DataSample for sample in samples):
        return
    for name in FIELDS:
        values = [sample.get(name, None) for sample in samples]
        if _is_batch(values):
            for sample, value in zip(samples, torch.stack(values).cpu()):
                sample.set_field(value, name, dtype=Tensor)


def own_memory(samples: Sequence[Any]) -> None:
    """Replace the rows of a batch's tensors on the CPU with copies of them.

    A row keeps the tensor of its whole batch alive, and pickle writes that
    tensor once per image. Multi-task predictions contain one per task.
    """
    for sample in samples:
        for name, value in list(sample.items()):
            if isinstance(value, DataSample):
                own_memory([value])
            elif isinstance(value, Tensor) and _is_row(value):
                sample.set_field(value.clone(), name)


def _is_row(value: Tensor) -> bool:
    """Whether a tensor is a part of a larger one on the CPU."""
    return value.is_cpu and value.untyped_storage().nbytes() > value.nbytes


def _is_batch(values: Sequence[Any]) -> bool:
    """Whether these can be stacked and are all on an accelerator."""
    if not values or not all(isinstance(x, Tensor) for x in values):
        return False
    kinds = {(x.shape, x.dtype, x.device) for x in values}
    return len(kinds) == 1 and values[0].device.type != 'cpu'
