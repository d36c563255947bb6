"""Runs files of dynamic networks with a C++ library and numpy.

Nothing here imports torch or OpenMMLab. ``Model`` loads and runs a file,
``python -m fgc_mm.runtime model.fgc cat.jpg`` classifies images, and
``docs/runtime.md`` describes the file.
"""

from typing import TYPE_CHECKING, Any

from fgc_mm.runtime.errors import LibraryError, RuntimeFileError

if TYPE_CHECKING:
    from fgc_mm.runtime.model import Model

__all__ = ['LibraryError', 'Model', 'RuntimeFileError']


def __getattr__(name: str) -> Any:
    if name == 'Model':  # the build during installation has no numpy
        from fgc_mm.runtime.model import Model

        return Model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
