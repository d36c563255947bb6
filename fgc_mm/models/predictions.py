"""Moving predictions to the host."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

FIELDS = 'pred_score', 'pred_label', 'gt_label', 'gt_score'


def to_host(samples: Sequence[Any]) -> None:
    """Move a batch's labels and scores to the CPU, with a copy per field.

    Otherwise evaluators copy them for each image, and the host waits for
    each copy.

    Args:
        samples: Predictions; multi-task ones are not moved.
    """
    if not all(type(sample) is DataSample for sample in samples):
        return
    for name in FIELDS:
        values = [sample.get(name, None) for sample in samples]
        if _is_batch(values):
            for sample, value in zip(samples, torch.stack(values).cpu()):
                sample.set_field(value, name, dtype=Tensor)


def _is_batch(values: Sequence[Any]) -> bool:
    """Whether these can be stacked and are all on an accelerator."""
    if not values or not all(isinstance(x, Tensor) for x in values):
        return False
    kinds = {(x.shape, x.dtype, x.device) for x in values}
    return len(kinds) == 1 and values[0].device.type != 'cpu'
