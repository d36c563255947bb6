"""Building the kernel: once, for all processes, or not at all."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fgc_mm.deploy.dynamic import kernel
from fgc_mm.errors import FGCError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered, before and after."""
    caches = (kernel.load_kernel, kernel._warn_once)
    monkeypatch.setenv('FGC_MM_CACHE', str(tmp_path))
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures('fresh')
def test_no_compiler_is_one_warning_and_plain_torch(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.warns(UserWarning, match='plain torch') as caught:
        assert kernel.choose_kernel('auto') is None
        assert kernel.choose_kernel('auto') is None
    assert len(caught) == 1
    assert '\n' not in str(caught[0].message)
    with pytest.raises(FGCError, match=r'no-such-compiler.*install g\+\+'):
        kernel.choose_kernel('kernel')


def test_a_failing_compiler_is_told_in_one_sentence(fresh, monkeypatch):
    script = fresh / 'cxx'
    script.write_text('#!/bin/sh\necho "x.cpp:1: error: boom" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv('CXX', str(script))
    with pytest.raises(FGCError, match='error: boom'):
        kernel.choose_kernel('kernel')
    leftovers = [p.name for p in fresh.rglob('*') if p.suffix == '.part']
    assert leftovers == []


@pytest.mark.usefixtures('fresh')
def test_torch_never_compiles(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert kernel.choose_kernel('torch') is None


def test_another_backend_is_refused():
    with pytest.raises(FGCError, match="'cuda' is none of auto"):
        kernel.choose_kernel('cuda')


def test_two_processes_compile_once(tmp_path):
    """The compiler is a script that counts its runs and takes its time."""
    script = tmp_path / 'cxx'
    log = tmp_path / 'log'
    # the file behind -o, with what is no library in it
    script.write_text(
        f'#!/bin/sh\necho run >> {log}\nsleep 1\n'
        'while [ "$1" != "-o" ]; do shift; done\necho no > "$2"\n'
    )
    script.chmod(0o755)
    env = dict(
        os.environ, CXX=str(script), FGC_MM_CACHE=str(tmp_path / 'cache')
    )
    env['PYTHONPATH'] = str(ROOT)
    code = 'from fgc_mm.deploy.dynamic import kernel; print(kernel._built())'
    children = [
        subprocess.Popen(
            [sys.executable, '-c', code],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {child.communicate(timeout=120)[0].strip() for child in children}
    assert len(paths) == 1
    assert Path(paths.pop()).read_text() == 'no\n'
    assert log.read_text() == 'run\n'


def test_the_key_knows_what_the_library_depends_on(monkeypatch):
    before = kernel._key()
    assert kernel._key() == before
    monkeypatch.setattr(kernel, '_cpu', lambda: 'another')
    assert kernel._key() != before
