"""Data sets, and a transform that reads images."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.datasets.digits import Digits
from fgc_mm.datasets.image_folder import ImageFolder
from fgc_mm.datasets.in_memory import InMemoryImages
from fgc_mm.datasets.load_image import LoadImage

__all__ = ['Digits', 'ImageFolder', 'InMemoryImages', 'LoadImage']
