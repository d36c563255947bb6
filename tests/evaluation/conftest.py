"""Predictions computed by hand."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def made():
    """The module of predictions; a worker process reads it too."""
    path = Path(__file__).with_name('predictions.py')
    spec = importlib.util.spec_from_file_location('predictions', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
