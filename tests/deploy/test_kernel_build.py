"""Building the kernel: once, for all processes, or not at all."""

import ctypes
import hashlib
import itertools
import os
import re
import subprocess
import tempfile
import warnings
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fgc_mm.deploy.dynamic import compiling, kernel
from fgc_mm.deploy.dynamic.builds import (
    AVX512,
    BUILDS,
    Build,
    cpu_name,
    runnable,
)
from fgc_mm.errors import FGCError

BASELINE = BUILDS[0]
# into $to: the file behind -o
OUTPUT = 'while [ "$1" != "-o" ]; do shift; done\nto="$2"\n'


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered, before and after."""
    caches = (kernel.load_kernel, kernel._warn_once)
    monkeypatch.setenv('FGC_MM_CACHE', str(tmp_path / 'cache'))
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def compiler(fresh, monkeypatch):
    """Makes a script the compiler, which notes its arguments."""
    script, log = fresh / 'cxx', fresh / 'log'

    def become(body, arguments=''):
        script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv('CXX', f'{script}{arguments}')
        return log

    return become


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


def test_a_failing_compiler_is_told_in_one_sentence(fresh, compiler):
    compiler('echo "x.cpp:1: error: boom" >&2\nexit 1')
    with pytest.raises(FGCError, match='error: boom'):
        kernel.choose_kernel('kernel')
    leftovers = [p.name for p in fresh.rglob('*') if p.suffix == '.part']
    assert leftovers == []


@pytest.mark.parametrize(
    'body, says, remedy',
    [
        (
            'echo "fatal error: Python.h: No such file" >&2\nexit 1',
            'Python.h is missing',
            'python3-dev',
        ),
        ('kill -9 $$', 'was killed', 'memory'),
        (
            'echo "g++: fatal error: Killed signal terminated" >&2\nexit 1',
            'was killed',
            'memory',
        ),
        ('exit 3', 'exit code 3', 'install g'),
    ],
)
def test_the_remedy_fits_the_failure(compiler, body, says, remedy):
    compiler(body)
    found, problem = kernel.load_kernel()
    assert found is None
    assert says in problem
    assert remedy in problem
    assert ('install g++' in problem) == ('install' in remedy)
    assert '\n' not in problem


def test_a_compiler_may_have_arguments(compiler):
    log = compiler('exit 1', arguments=' g++ "-D X=1"')
    kernel.load_kernel()
    assert log.read_text().startswith('g++ -D X=1 ')


@pytest.mark.usefixtures('fresh')
def test_a_compiler_that_is_no_command(monkeypatch):
    monkeypatch.setenv('CXX', 'g++ "')
    assert 'is no command' in kernel.load_kernel()[1]


def test_it_says_that_it_compiles(compiler, capsys):
    compiler(OUTPUT + 'echo no > "$to"')
    library = compiling.built(BASELINE)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(library) in line
    assert 'a minute' in line
    assert compiling.built(BASELINE) == library
    assert capsys.readouterr().err == ''


def test_a_damaged_library_is_made_anew(compiler):
    log = compiler(OUTPUT + 'echo whole library > "$to"')
    library = compiling.built(BASELINE)
    with library.open('r+') as file:
        file.truncate(5)
    assert compiling.built(BASELINE) == library
    assert library.read_text() == 'whole library\n'
    library.unlink()
    assert compiling.built(BASELINE).read_text() == 'whole library\n'
    assert len(log.read_text().splitlines()) == 3


def test_what_cannot_be_loaded_is_made_anew_once(compiler):
    log = compiler(OUTPUT + 'echo no library > "$to"')
    found, problem = kernel.load_kernel()
    assert found is None
    assert 'ImportError' in problem
    builds = len(runnable(kernel.instruction_sets()))
    assert len(log.read_text().splitlines()) == builds + 1


@pytest.mark.usefixtures('fresh')
def test_any_other_failure_is_named_too(monkeypatch):
    def fail(_):
        raise RuntimeError('the disk is tired\nand more')

    monkeypatch.setattr(kernel, 'built', fail)
    with pytest.warns(UserWarning, match='RuntimeError: the disk is tired'):
        assert kernel.choose_kernel('auto') is None


def test_without_a_home_the_cache_is_a_temporary_folder(
    compiler, monkeypatch, tmp_path
):
    """A user of a container who has neither HOME nor a passwd entry."""

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    compiler(OUTPUT + 'echo no > "$to"')
    monkeypatch.delenv('FGC_MM_CACHE')
    monkeypatch.setattr(Path, 'home', homeless)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    library = compiling.built(BASELINE)
    folder = tmp_path / f'fgc_mm-{os.getuid()}'
    assert folder in library.parents
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, 'getuid', lambda: 54321)
    folder.rename(tmp_path / 'fgc_mm-54321')
    with pytest.raises(compiling.CannotCompile, match='another user'):
        compiling.built(BASELINE)


def test_where_nothing_can_be_written(compiler, monkeypatch, tmp_path):
    compiler('exit 0')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('FGC_MM_CACHE', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(compiling.CannotCompile, match='set FGC_MM_CACHE'):
        compiling.built(BASELINE)


@pytest.mark.usefixtures('fresh')
def test_torch_never_compiles(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert kernel.choose_kernel('torch') is None


def test_another_backend_is_refused():
    with pytest.raises(FGCError, match="'cuda' is none of auto"):
        kernel.choose_kernel('cuda')


def test_two_processes_compile_once(compiler):
    """The compiler is a script that counts its runs and takes its time."""
    log = compiler('sleep 0.5\n' + OUTPUT + 'echo no > "$to"')
    # what torch needs is looked up before, as it is slow
    compiling._command(BASELINE)
    fork = get_context('fork')
    children = [
        fork.Process(target=compiling.built, args=(BASELINE,))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert compiling.built(BASELINE).read_text() == 'no\n'
    assert len(log.read_text().splitlines()) == 1


def test_the_key_knows_what_the_library_depends_on(monkeypatch):
    commands = [compiling._command(build) for build in BUILDS]
    keys = [compiling._key(command) for command in commands]
    assert keys == [compiling._key(command) for command in commands]
    assert len(set(keys)) == len(BUILDS)
    monkeypatch.setattr(torch, '__version__', '0.1')
    assert compiling._key(commands[0]) != keys[0]


def test_no_library_is_made_for_the_cpu_of_one_node():
    """Another node that shares the cache has the sets that are named."""
    for build in BUILDS:
        flags = [
            flag
            for flag in compiling._command(build)
            if flag.startswith('-m') and flag != '-mtune=generic'
        ]
        assert flags == [f'-m{name}' for name in build.needs]


@pytest.mark.parametrize(
    'sets, names',
    [
        ((), ['baseline']),
        (('sse2', 'neon'), ['baseline']),
        (('avx',), ['avx']),
        (('avx', 'avx2'), ['avx']),
        (('avx', 'avx2', 'fma'), ['avx2']),
        (('avx', 'avx2', 'fma', 'avx512f'), ['avx2']),
        (('avx', *AVX512), ['avx512', 'avx512-256']),
    ],
)
def test_builds_are_chosen_by_instruction_sets_alone(sets, names):
    assert [build.name for build in runnable(sets)] == names


def test_of_several_builds_the_fastest_is_kept(monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(kernel, 'time', clock)

    def taking(*seconds):
        """A build whose runs take so long, in turns."""
        turns = itertools.cycle(seconds)

        def run(*_):
            now[0] += next(turns)

        return SimpleNamespace(Conv=lambda *_: SimpleNamespace(run=run))

    fast, slow = taking(9, 1, 9), taking(2, 2, 2)  # a busy machine
    assert kernel.fastest([slow, fast]) is fast
    assert kernel.fastest([fast, slow]) is fast


SUMS = r"""
#include "tile.h"
extern "C" int lanes() { return fgc::kLanes; }
extern "C" void sums(const float* x, const float* w, float* y, long inputs,
                     long outs, long vectors) {
  const float* planes[64];
  int64_t w_of_in[64 + fgc::kAhead] = {};
  const float* rows[fgc::kMaxOut];
  const int64_t taps[2] = {0, 1};
  float start[fgc::kMaxOut] = {};
  const long stride = vectors * fgc::kLanes;
  for (long i = 0; i < inputs; ++i) {
    planes[i] = x + i * (stride + 1);
    w_of_in[i] = 2 * i;
  }
  for (long o = 0; o < outs; ++o) rows[o] = w + o * 2 * inputs;
  fgc::Sum sum{planes, w_of_in, inputs, rows, taps, 2, false};
  fgc::sum_group(sum, outs, 0, vectors, y, stride, start, 7);
}
"""


def compile_sums(folder, build, *options):
    """The innermost loops alone, without torch: seconds, not a minute."""
    source = folder / 'sums.cpp'
    source.write_text(SUMS)
    target = folder / f'{build.name}{build.lanes}'
    subprocess.run(
        [
            *compiling._compiler(), str(source), '-O1', '-std=c++17',
            f'-I{compiling.SOURCES}', *build.flags, *options,
            '-o', str(target),
        ],
        check=True,
    )  # fmt: skip
    return target


needs_compiler = pytest.mark.skipif(
    kernel.load_kernel()[0] is None, reason='no C++ compiler'
)
needs_x86 = pytest.mark.skipif(
    not kernel.instruction_sets(), reason='options of x86-64'
)


@needs_compiler
@needs_x86
def test_the_source_fits_512_bits(tmp_path):
    """Compiled on every machine, also where it cannot run."""
    for build in BUILDS[-2:]:
        code = compile_sums(tmp_path, build, '-O2', '-S').read_text()
        multiplies = [x for x in code.splitlines() if 'fmadd' in x]
        assert multiplies
        wide = [x for x in multiplies if '%zmm' in x]
        assert len(wide) == (len(multiplies) if build.lanes == 16 else 0)
        # registers that AVX2 has not
        assert any(re.search(r'mm(1[6-9]|2\d|3[01])', x) for x in multiplies)


@needs_compiler
@pytest.mark.parametrize('lanes', [4, 8, 16])
def test_every_width_sums_right(tmp_path, lanes):
    """The compiler makes wide vectors of what the CPU has."""
    best = runnable(kernel.instruction_sets())[0]
    build = Build(best.name, 0, best.needs, lanes)
    library = compile_sums(tmp_path, build, '-shared', '-fPIC', '-w')
    code = ctypes.CDLL(str(library))
    assert code.lanes() == lanes
    for inputs, outs, vectors in [(1, 1, 1), (9, 3, 5), (20, 4, 13)]:
        pixels = vectors * lanes
        x = torch.randn(inputs, pixels + 1)
        w = torch.randn(outs, inputs, 2)
        y = torch.empty(outs, pixels)
        addresses = [ctypes.c_void_p(t.data_ptr()) for t in (x, w, y)]
        code.sums(*addresses, *map(ctypes.c_long, (inputs, outs, vectors)))
        want = torch.nn.functional.conv1d(x[None], w)[0]
        torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)


def test_cpus_are_named_by_family(monkeypatch):
    """Virtual machines call several generations by one name."""
    text = (
        'processor : 0\ncpu family\t: 26\nmodel\t\t: 2\n'
        'model name\t: AMD EPYC\nflags : fpu\n\nprocessor : 1\n'
    )
    monkeypatch.setattr(Path, 'read_text', lambda _: text)
    assert cpu_name() == 'AMD EPYC, family 26, model 2'

    def none(_):
        raise FileNotFoundError

    monkeypatch.setattr(Path, 'read_text', none)
    assert cpu_name()


@needs_compiler
def test_the_kernel_says_which_build_it_is():
    loaded = kernel.load_kernel()[0]
    able = runnable(kernel.instruction_sets())
    assert (loaded.build, loaded.lanes) in [(b.name, b.lanes) for b in able]
    assert kernel.build_name() == loaded.build
    folder = Path(loaded.__file__).parent
    checksum = hashlib.sha256(Path(loaded.__file__).read_bytes()).hexdigest()
    assert (folder / 'fgc_mm_kernel.sha256').read_text() == checksum
