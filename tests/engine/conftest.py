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


@pytest.fixture(scope='session')
def real():
    """The module that starts training in processes of their own."""
    spec = importlib.util.spec_from_file_location(
        'real_train', HERE / 'real_train.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def uninterrupted(real, made_once):
    """The folder of a run that nobody disturbed."""
    return made_once('uninterrupted', real.run)
