"""A data preprocessor with asynchronous copies to the device."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor

from fgc_mm.functional import copied_to
from fgc_mm.registry import MODELS


@MODELS.register_module()
class NonBlockingDataPreprocessor(ClsDataPreprocessor):
    """``ClsDataPreprocessor`` with copies that do not block the host.

    Upstream's copies of images and labels block the host until an
    accelerator has finished the previous step; the results are the same. For
    a model on the CPU it copies like upstream: images that a data set holds
    on a GPU would otherwise be read before the copy has finished. It takes
    the arguments of ``ClsDataPreprocessor``.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """As upstream; labels are copied to the device first."""
        # a copy to the CPU must be finished before it is read
        self._non_blocking = torch.device(self.device).type != 'cpu'
        samples = data.get('data_samples') if isinstance(data, dict) else None
        if samples and self._non_blocking:
            self._move_labels(samples)
        return super().forward(data, training)

    def _move_labels(self, samples: Sequence[Any]) -> None:
        if not all(type(sample) is DataSample for sample in samples):
            return
        labels = [sample.get('gt_label', None) for sample in samples]
        if not all(isinstance(x, Tensor) and x.is_cpu for x in labels):
            return
        moved = copied_to(torch.cat(labels), torch.device(self.device))
        parts = moved.split([len(label) for label in labels])
        for sample, label in zip(samples, parts, strict=True):
            # an existing field: skips the type check of set_field
            object.__setattr__(sample, 'gt_label', label)
