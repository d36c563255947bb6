"""Only `make test-cluster` runs these: they start a Slurm, as root."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore_glob = []
if os.environ.get('FGC_TEST_CLUSTER') != '1':
    collect_ignore_glob = ['test_*.py']


@pytest.fixture(scope='session')
def slurm():
    """A Slurm of two nodes."""
    subprocess.run([HERE / 'install.sh'], check=True)
    sys.path.insert(0, str(HERE))
    from slurm import Slurm

    sys.path.remove(str(HERE))
    with Slurm(tempfile.mkdtemp(prefix='slurm')) as slurm:
        yield slurm
