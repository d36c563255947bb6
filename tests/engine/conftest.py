"""Short real runs."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope='session')
def digits():
    """The module that makes tiny runs; a worker process imports it too."""
    spec = importlib.util.spec_from_file_location(
        'digits_run', HERE / 'digits_run.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
