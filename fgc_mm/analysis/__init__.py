"""Statistics, figures and a report of what gates do on a data set."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from .extract import load_or_run_pass
from .images import Pictures, choose_images, load_dataset, pictures_of
from .mask_exchange import exchange_masks
from .measure import measure
from .measurement import Measurement
from .options import AnalysisOptions
from .report import write_analysis
from .stored_pass import StoredPass

__all__ = [
    'AnalysisOptions',
    'Measurement',
    'Pictures',
    'StoredPass',
    'choose_images',
    'exchange_masks',
    'load_dataset',
    'load_or_run_pass',
    'measure',
    'pictures_of',
    'write_analysis',
]
