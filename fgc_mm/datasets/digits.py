"""Handwritten digits that are included in scikit-learn."""

from functools import cache
from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset

from fgc_mm.errors import FGCError
from fgc_mm.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 handwritten digits of 8 x 8 pixels; nothing is downloaded.

    The UCI test set of optical digits, as included in scikit-learn, with a
    fixed stratified split: 1,437 images for training and 360 for testing.

    Args:
        split: ``'train'`` or ``'test'``.
        **kwargs: As in mmpretrain's ``BaseDataset`` (``pipeline``,
            ``indices``, ...), which raises an error for unknown ones.

    Items: ``img`` (8, 8, 3) uint8, ``gt_label`` 0 to 9.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple('0123456789'))

    def __init__(self, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'test'):
            raise FGCError(
                f"split={split!r} of Digits is unknown; choose 'train' or "
                "'test'."
            )
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images and labels of the split."""
        parts = _read_parts()
        train = self.split == 'train'
        chosen, labels = (parts[0], parts[2]) if train else parts[1::2]
        return [
            dict(img=np.repeat(img[..., None], 3, axis=2), gt_label=int(label))
            for img, label in zip(chosen, labels)
        ]


@cache  # reading the text file takes 0.1 s, and a run has three data sets
def _read_parts() -> list[np.ndarray]:
    """Images for training and testing, then labels for both; not written."""
    # takes 2 s to import, and only this data set needs it
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # 0 to 16 ink levels -> 0 to 255
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return train_test_split(
        images,
        digits.target,
        test_size=360,
        random_state=0,
        stratify=digits.target,
    )
