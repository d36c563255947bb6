"""The compiled library, for the tests that run it."""

import pytest

from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import load_library


@pytest.fixture(scope='session')
def compiled():
    """Compiles the library, once; without a compiler the test is skipped."""
    try:
        load_library()
    except LibraryError as error:
        pytest.skip(str(error))
