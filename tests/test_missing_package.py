"""A missing package is one sentence, with the command that helps."""

import subprocess
import sys
from pathlib import Path

import pytest

from fgc_mm import missing_package

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ('command', 'package'),
    [
        (['tools/demo.py'], 'rich'),
        (['-m', 'fgc_mm.runtime', 'model.fgc', 'cat.jpg'], 'numpy'),
    ],
)
def test_a_python_without_packages(command, package):
    done = subprocess.run(
        [sys.executable, '-S', *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    line = done.stderr.strip()
    assert line.startswith(f'error: {package} is not installed')
    assert '\n' not in line


def test_another_python_is_told_to_activate_the_environment(
    tmp_path, monkeypatch
):
    environment = tmp_path / '.venv'
    monkeypatch.setattr(missing_package, 'ENVIRONMENT', environment)
    assert missing_package.remedy('pip install x') == 'run `pip install x`'
    environment.mkdir()
    told = missing_package.remedy('pip install x')
    assert f'`source {environment}/bin/activate`' in told
    python = environment / 'bin' / 'python'
    monkeypatch.setattr(sys, 'executable', str(python))
    assert missing_package.remedy('pip install x') == 'run `pip install x`'


@pytest.mark.parametrize('name', ['fgc_mm.gates.none', None])
def test_a_missing_module_of_the_package_is_a_bug(name):
    error = ModuleNotFoundError('see the manual', name=name)
    assert missing_package.missing_sentence(error) is None
