"""Installing compiles the library, if there is a compiler."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')
# writes the file behind -o
COMPILER = """#!/bin/sh
while [ "$1" != "-o" ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Runs `setup.py build` on the package's runtime."""
    checkout = tmp_path / 'checkout'
    (checkout / 'fgc_mm').mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, checkout)
    for file in (ROOT / 'fgc_mm').glob('*.py'):
        shutil.copy(file, checkout / 'fgc_mm')
    shutil.copytree(
        ROOT / 'fgc_mm' / 'runtime',
        checkout / 'fgc_mm' / 'runtime',
        ignore=shutil.ignore_patterns('lib', '__pycache__'),
    )

    def run(compiler):
        monkeypatch.setenv('CXX', str(compiler))
        done = subprocess.run(
            # isolated: the process is no copy of one that has MMEngine
            [sys.executable, '-I', 'setup.py', '-q', 'build', '-b', 'out'],
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return checkout / 'out' / 'lib' / 'fgc_mm' / 'runtime', done.stderr

    return run


def test_the_library_and_its_sources_are_installed(build, tmp_path):
    compiler = tmp_path / 'cxx'
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    installed, output = build(compiler)
    assert 'fgc_mm: ' not in output
    names = sorted(path.name for path in (installed / 'lib').iterdir())
    assert names == ['libfgc.sha256', 'libfgc.so', 'sources.key']
    assert (installed / 'lib' / 'libfgc.so').read_text() == 'library\n'
    sources = ROOT / 'fgc_mm' / 'runtime' / 'csrc'
    for pattern in ('*.h', '*.cpp'):
        wanted = {path.name for path in sources.glob(pattern)}
        found = {path.name for path in (installed / 'csrc').glob(pattern)}
        assert wanted == found and wanted
    # what has been compiled is not compiled again
    installed, output = build('no-such-compiler')
    assert 'fgc_mm: ' not in output


def test_no_compiler_is_one_line(build):
    installed, output = build('no-such-compiler')
    (line,) = (x for x in output.splitlines() if x.startswith('fgc_mm: '))
    assert 'compiled when it is first used' in line
    assert 'no-such-compiler' in line
    assert (installed / 'csrc' / 'fgc.h').exists()
    assert not (installed / 'lib' / 'libfgc.so').exists()
