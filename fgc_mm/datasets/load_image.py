"""Reading an image file, with its name in the error."""

from __future__ import annotations

import cv2
from mmcv.transforms import LoadImageFromFile

from fgc_mm.errors import FGCError
from fgc_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` that names the file that it cannot decode."""

    def transform(self, results: dict) -> dict | None:
        """As in ``LoadImageFromFile``.

        Raises:
            FGCError: The file is no image, or a damaged one.
        """
        try:
            return super().transform(results)
        except (AssertionError, ValueError, cv2.error) as error:
            raise FGCError(
                f'{results["img_path"]} cannot be decoded: every file of the '
                'data set is a whole image; replace or remove it.'
            ) from error
