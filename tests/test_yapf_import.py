"""yapf can be imported while another process writes its cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# not sys.executable, whose processes have imported yapf (warm_python)
PYTHON = Path(sys.prefix, 'bin', 'python')

IMPORT = """
import os
before = dict(os.environ)
import fgc_mm.checked_stack
assert dict(os.environ) == before
from mmengine.config import Config
assert Config(dict(a=1)).pretty_text == 'a = 1\\n'
"""


@pytest.mark.parametrize('size', [0, 1, 100])
def test_incomplete_cache(tmp_path, size):
    environment = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path)}

    def run(*command):
        return subprocess.run(
            command, env=environment, capture_output=True, text=True
        )

    run(PYTHON, '-c', 'import yapf')
    files = [*tmp_path.glob('YAPF/**/*.pickle')]
    assert len(files) == 2
    for file in files:
        os.truncate(file, size)
    upstream = run(PYTHON, '-c', 'import yapf')
    assert 'pickle.load' in upstream.stderr, 'our module is not needed'
    done = run(PYTHON, '-c', IMPORT)
    assert done.returncode == 0, done.stderr
