"""Installing compiles the library, if there is a compiler."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'model-index.yml',
    'pyproject.toml',
    'setup.cfg',
    'setup.py',
)
# writes the file behind -o
COMPILER = """#!/bin/sh
while [ "$1" != "-o" ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def checkout(tmp_path):
    """What building needs of the repository."""
    checkout = tmp_path / 'checkout'
    (checkout / 'fgc_mm').mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, checkout)
    for name in ('configs', 'tools', 'fgc_mm/comparison'):
        shutil.copytree(ROOT / name, checkout / name)
    for file in (ROOT / 'fgc_mm').glob('*.py'):
        shutil.copy(file, checkout / 'fgc_mm')
    shutil.copytree(
        ROOT / 'fgc_mm' / 'runtime',
        checkout / 'fgc_mm' / 'runtime',
        ignore=shutil.ignore_patterns('lib', '__pycache__'),
    )
    return checkout


def setup(checkout, *arguments):
    """Runs setup.py; its output."""
    done = subprocess.run(
        # isolated: the process is no copy of one that has MMEngine
        [sys.executable, '-I', 'setup.py', '-q', *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def build(checkout, monkeypatch):
    """Runs `setup.py build` on the package's runtime."""

    def run(compiler):
        monkeypatch.setenv('CXX', str(compiler))
        said = setup(checkout, 'build', '-b', 'out')
        return checkout / 'out' / 'lib' / 'fgc_mm' / 'runtime', said

    return run


def names(folder, pattern='*'):
    """Relative paths of the files below a folder."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob(pattern)
        if path.is_file() and '__pycache__' not in path.parts
    }


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


def test_configs_and_tools_are_installed(build):
    """As mmpretrain does, for MIM and for commands in any folder."""
    installed, _ = build('no-such-compiler')
    package = installed.parent
    for name in ('configs', 'tools'):
        found = names(package / '.mim' / name)
        assert found == names(ROOT / name) and len(found) > 20
    assert {'_base_/default_runtime.py', 'studies/figure5_rho.yaml'} <= names(
        package / '.mim' / 'configs'
    )
    assert (package / '.mim' / 'model-index.yml').is_file()
    assert (package / 'comparison' / 'published.csv').is_file()
    # a config that is gone is not installed by the next build
    left = package / '.mim' / 'configs' / 'gone.py'
    left.touch()
    build('no-such-compiler')
    assert not left.exists()


def test_a_checkout_in_place_has_links(checkout, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    code = (
        'from setuptools.dist import Distribution\n'
        'import runpy, setuptools\n'
        'setuptools.setup = lambda **options: None\n'
        "found = runpy.run_path('setup.py')\n"
        'from pathlib import Path\n'
        "for _ in range(2): found['link_mim'](Path('fgc_mm/.mim'))\n"
    )
    script = checkout / 'in_place.py'
    script.write_text(code)
    subprocess.run([sys.executable, '-I', script], cwd=checkout, check=True)
    for name in ('configs', 'tools'):
        link = checkout / 'fgc_mm' / '.mim' / name
        assert link.is_symlink() and link.resolve() == checkout / name


def test_the_sdist_has_what_a_wheel_is_made_of(checkout, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    setup(checkout, 'sdist')
    (file,) = (checkout / 'dist').glob('*.tar.gz')
    with tarfile.open(file) as archive:
        found = {name.partition('/')[2] for name in archive.getnames()}
    for name in ('configs', 'tools', 'fgc_mm/runtime/csrc'):
        assert {f'{name}/{x}' for x in names(ROOT / name)} <= found
    assert not [name for name in found if '.mim' in name]
    # and what it is made of makes the same wheel
    assert {'setup.py', 'setup.cfg', 'pyproject.toml', 'LICENSE'} <= found
    assert 'model-index.yml' in found
