"""Any folder of class folders, or an even share of it."""

from typing import Any

from mmpretrain.datasets import CustomDataset

from fgc_mm.errors import FGCError
from fgc_mm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, of which every n-th image is taken.

    Images are sorted by class, so each class keeps its share.

    Args:
        every: n; 1 for all images.
        **kwargs: As in ``CustomDataset``; an unknown one is refused there.

    Raises:
        FGCError: ``every`` is no whole number of at least 1.
    """

    def __init__(self, every: int = 1, **kwargs: Any) -> None:
        if not isinstance(every, int) or every < 1:
            raise FGCError(
                f'every={every!r} of ImageFolder must be a whole number of '
                'at least 1; 10 takes every tenth image.'
            )
        self.every = every
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """The chosen images."""
        return super().load_data_list()[:: self.every]
