"""The Makefile and the installer, without a real installation."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_outer_make(monkeypatch):
    """`make test` runs us: its flags must not reach the make in the tests."""
    names = 'MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES'
    # what may be given on its command line is exported too
    for name in (*names, 'ARGS', 'PYTHON'):
        monkeypatch.delenv(name, raising=False)


# Replaces Python: passes the version check, and for the installer makes a
# .venv whose Python prints its arguments.
PYTHON = """#!/bin/sh
case $1 in
--version) echo 'Python 3.9.1' ;;
-c) {version} ;;
requirements/install.py)
    echo installing
    mkdir -p .venv/bin
    printf '#!/bin/sh\\necho "runs $*"\\n' > .venv/bin/python
    chmod +x .venv/bin/python
    {install} ;;
esac
"""
STAMP = 'printf %s "$PWD" > .venv/.installed'


@pytest.fixture
def checkout(tmp_path):
    """A checkout (with a space in its path), and a `make` that runs in it."""
    if shutil.which('make') is None:
        pytest.skip('needs make')
    folder = tmp_path / 'a checkout'
    folder.mkdir()
    for name in ('Makefile', 'setup.cfg', 'pyproject.toml'):
        shutil.copy(ROOT / name, folder)
    for name in ('requirements', '.ci'):
        shutil.copytree(ROOT / name, folder / name)

    def make(*goals, version='exit 0', install=STAMP, python=None):
        fake = tmp_path / 'python'
        fake.write_text(PYTHON.format(version=version, install=install))
        fake.chmod(0o755)
        command = ['make', *goals, f'PYTHON={python or fake}']
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True
        )

    make.folder = folder
    return make


TESTS = 'runs -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder'


def test_installs_once(checkout):
    first, second = checkout('test'), checkout('test')
    assert first.stdout.splitlines() == ['installing', TESTS]
    assert second.stdout.splitlines() == [TESTS]
    assert checkout('demo').stdout == 'runs tools/demo.py\n'
    assert not first.stderr + second.stderr


@pytest.mark.parametrize('name', ['setup.cfg', 'requirements/constraints.txt'])
def test_installs_again_after_a_change(checkout, name):
    checkout('install')
    file = checkout.folder / name
    stamp = checkout.folder / '.venv' / '.installed'
    later = stamp.stat().st_mtime + 5
    os.utime(file, (later, later))
    assert checkout('test').stdout.startswith('installing\n')


def test_installs_again_after_a_move(checkout):
    checkout('install')
    (checkout.folder / '.venv' / '.installed').write_text('/elsewhere')
    assert checkout('test').stdout.startswith('installing\n')
    assert checkout('test').stdout.startswith('runs')


@pytest.mark.parametrize('install', ['exit 1', 'true'])
def test_unfinished_installation_is_done_again(checkout, install):
    assert 'installing' in checkout('install', install=install).stdout
    assert checkout('test').stdout.startswith('installing\n')


def test_failed_installation_stops(checkout):
    done = checkout('test', install='exit 1')
    assert done.returncode and 'runs' not in done.stdout


@pytest.mark.parametrize('goal', ['demo', 'test', 'lint'])
def test_wrong_python_is_one_sentence(checkout, goal):
    done = checkout(goal, version='exit 1')
    assert done.returncode and not done.stdout
    (line,) = (x for x in done.stderr.splitlines() if 'make:' not in x)
    assert 'is no Python 3.10 to 3.13 (Python 3.9.1)' in line
    assert line.endswith(f'as in `make PYTHON=python3.11 {goal}`.')


def test_a_missing_python_is_one_sentence(checkout):
    done = checkout('demo', python='/no/python')
    assert done.returncode
    assert 'error: /no/python is no Python 3.10' in done.stderr


def install_slurm(checkout, command):
    """Replaces the script that installs Slurm."""
    script = checkout.folder / 'tests' / 'cluster' / 'install.sh'
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\n{command}\n')
    script.chmod(0o755)


def install_mkdocs(checkout):
    """Replaces the program that builds the documentation."""
    script = checkout.folder / '.venv-docs' / 'bin' / 'mkdocs'
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\necho "mkdocs $*"\n')
    script.chmod(0o755)


def test_warnings_of_the_documentation_are_errors(checkout):
    install_mkdocs(checkout)
    done = subprocess.run(
        ['make', 'docs'],
        cwd=checkout.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'mkdocs build --strict --quiet' in done.stdout.splitlines()


def test_ci_lints_and_runs_all_tests(checkout):
    checkout('install')
    install_slurm(checkout, 'echo "a Slurm"')
    done = subprocess.run(
        [checkout.folder / '.ci' / 'run'], capture_output=True, text=True
    )
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert 'runs -m ruff check .' in lines
    assert lines[-4:] == [
        TESTS,
        'runs -m pytest -q tests/tools/test_reproduce_page.py',
        'a Slurm',
        'runs -m pytest -q tests/cluster',
    ]


def test_without_a_slurm_the_cluster_tests_fail(checkout):
    checkout('install')
    install_slurm(checkout, 'echo "error: no Slurm" >&2; exit 1')
    done = checkout('test-cluster')
    assert done.returncode != 0 and 'error: no Slurm' in done.stderr
    assert 'pytest' not in done.stdout


@pytest.fixture
def installer(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location(
        'fgc_install', ROOT / 'requirements' / 'install.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / '.venv'
    venv.mkdir()
    monkeypatch.setattr(module, 'VENV', venv)
    monkeypatch.setattr(module, 'STAMP', venv / '.installed')
    monkeypatch.setattr(module, 'LOG', venv / 'install.log')
    return module


@pytest.mark.parametrize(
    'log, words',
    [
        ('', 'starting pip'),
        ('Collecting torch==2.11.0\n', '1 packages found, downloading torch'),
        (
            'Collecting a\n  Downloading b\nCollecting c-d>=1 (from a)\n',
            '2 packages found, downloading c-d',
        ),
        (
            'Collecting a\nBuilding wheels for collected packages: fgc_mm\n',
            'compiling the runtime of fgc_mm',
        ),
        (
            'Collecting a\nInstalling collected packages: a, b, c\n',
            'unpacking 3 packages',
        ),
    ],
)
def test_progress(installer, log, words):
    assert installer.describe(log) == words


def test_pips_failure_shows_the_end_of_its_log(installer, monkeypatch):
    code = "print(*range(99), 'the reason', sep='\\n'); raise SystemExit(1)"
    monkeypatch.setattr(installer, 'PIP', [sys.executable, '-c', code])
    with pytest.raises(SystemExit, match='the reason') as caught:
        installer.run_pip()
    assert str(caught.value).startswith('error: pip failed')
    assert '50' not in str(caught.value).split()


def test_headless_opencv_where_there_is_no_libgl(installer, monkeypatch):
    calls, working = [], [False, True]
    monkeypatch.setattr(installer, 'make_environment', lambda: None)
    monkeypatch.setattr(installer, 'run_pip', lambda *a: calls.append(a))
    monkeypatch.setattr(installer, 'imports', lambda _: working.pop(0))
    installer.main()
    assert [call[0] for call in calls] == ['install', 'uninstall', 'install']
    assert 'opencv-python-headless' in calls[2]
    assert '--force-reinstall' in calls[2]
    assert installer.STAMP.read_text() == str(ROOT)


def test_no_stamp_after_a_failure(installer, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    installer.STAMP.write_text('an earlier one')
    monkeypatch.setattr(installer, 'make_environment', lambda: None)
    monkeypatch.setattr(installer, 'run_pip', fail)
    with pytest.raises(KeyboardInterrupt):
        installer.main()
    assert not installer.STAMP.exists()
