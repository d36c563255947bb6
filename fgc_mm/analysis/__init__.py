"""What gates do with a data set: statistics, figures and a report."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from .extract import stored_pass
from .images import Pictures, choose_images, load_dataset, pictures_of
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
    'load_dataset',
    'measure',
    'pictures_of',
    'stored_pass',
    'write_analysis',
]
