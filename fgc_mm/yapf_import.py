"""Imports yapf, whatever the state of its cache.

mmengine imports yapf, which keeps its grammars in the user's cache folder.
yapf gives a file its name before the file is complete: the import fails in
another process that starts at the same time, as the ranks of a training do,
and in every later one if the process was killed in between.
"""

import os
from contextlib import suppress
from importlib import import_module
from tempfile import TemporaryDirectory

MODULE = 'yapf.yapflib.yapf_api'


def import_yapf() -> None:
    """Imports yapf; if that fails, again with an empty cache."""
    # mmengine reports it if it is not installed
    with suppress(ModuleNotFoundError):
        try:
            import_module(MODULE)
        except Exception:  # an incomplete pickle raises various errors
            _import_with_empty_cache()


def _import_with_empty_cache() -> None:
    before = dict(os.environ)
    with TemporaryDirectory() as folder:
        # HOME where XDG_CACHE_HOME is not used
        os.environ.update(XDG_CACHE_HOME=folder, HOME=folder)
        try:
            import_module(MODULE)
        finally:
            os.environ.clear()
            os.environ.update(before)
