"""Building the library: once, for all processes, or not at all."""

import os
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pytest

from fgc_mm.errors import FGCError
from fgc_mm.runtime import build_options, building, cache, compiler, library
from fgc_mm.runtime.errors import LibraryError

# into $to: the file behind -o
OUTPUT = 'while [ "$1" != "-o" ]; do shift; done\nto="$2"\n'
WRITES = OUTPUT + 'echo whole library > "$to"'


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, no shipped and no loaded library, before and after."""
    monkeypatch.setenv('FGC_MM_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(library, 'SHIPPED', tmp_path / 'shipped')
    library._load_once.cache_clear()
    yield tmp_path
    library._load_once.cache_clear()


@pytest.fixture
def cxx(fresh, monkeypatch):
    """Makes a script the compiler, which notes its arguments."""
    script, log = fresh / 'cxx', fresh / 'log'

    def become(body, arguments=''):
        script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv('CXX', f'{script}{arguments}')
        return log

    return become


def links(log):
    """How often a library was made."""
    return sum('-shared' in line for line in log.read_text().splitlines())


@pytest.mark.usefixtures('fresh')
def test_no_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(FGCError, match=r'no-such-compiler.*install g\+\+'):
        library.load_library()


@pytest.mark.usefixtures('fresh')
def test_any_other_failure_is_named_too(monkeypatch):
    def fail():
        raise RuntimeError('the disk is full\nand more')

    monkeypatch.setattr(library, 'cached_library', fail)
    with pytest.raises(LibraryError, match='RuntimeError: the disk is full'):
        library.load_library()


def test_a_failure_is_remembered(cxx):
    """The compiler is not called again after a failure."""
    log = cxx('exit 1')
    with pytest.raises(LibraryError):
        library.load_library()
    calls = log.read_text()
    with pytest.raises(LibraryError):
        library.load_library()
    assert log.read_text() == calls


def test_a_failing_compiler_is_one_sentence(fresh, cxx):
    cxx('echo "x.cpp:1: error: boom" >&2\nexit 1')
    with pytest.raises(LibraryError, match='error: boom'):
        library.load_library()
    leftovers = [p.name for p in fresh.rglob('*') if p.suffix == '.part']
    assert leftovers == []


@pytest.mark.parametrize(
    'body, message, remedy',
    [
        ('kill -9 $$', 'was killed', 'memory'),
        (
            'echo "g++: fatal error: Killed signal terminated" >&2\nexit 1',
            'was killed',
            'memory',
        ),
        ('exit 3', 'exit code 3', 'install g'),
        ('exit 0', 'did not write', 'install g'),
        (r"printf 'error: \344 boom\n' >&2; exit 1", 'boom', 'install g'),
    ],
)
def test_the_remedy_fits_the_failure(cxx, body, message, remedy):
    cxx(body)
    with pytest.raises(LibraryError) as caught:
        library.load_library()
    problem = str(caught.value)
    assert message in problem and remedy in problem
    assert ('install g++' in problem) == ('install' in remedy)
    assert '\n' not in problem and problem.endswith('.')


def test_a_compiler_that_does_not_end(cxx, monkeypatch):
    cxx('exec sleep 9')
    monkeypatch.setattr(compiler, 'COMPILE_SECONDS', 0.05)
    with pytest.raises(LibraryError, match='compile once on an idle'):
        building.cached_library()


def test_a_compiler_may_have_arguments(cxx):
    log = cxx('exit 1', arguments=' g++ "-D X=1"')
    with pytest.raises(LibraryError):
        building.cached_library()
    assert log.read_text().startswith('g++ -D X=1 ')


@pytest.mark.usefixtures('fresh')
def test_a_compiler_that_is_no_command(monkeypatch):
    monkeypatch.setenv('CXX', 'g++ "')
    with pytest.raises(LibraryError, match='is not a command'):
        building.cached_library()


def test_a_folder_of_a_killed_compiler_is_no_obstacle(fresh, cxx):
    """In a container its process number is taken again."""
    cxx(WRITES)
    (fresh / f'.libfgc.so.{os.getpid()}.part').mkdir()
    building.compile_library(fresh / 'libfgc.so')
    assert cache.is_intact(fresh / 'libfgc.so')
    left = [path.name for path in fresh.glob('.*')]
    assert left == [f'.libfgc.so.{os.getpid()}.part']


def test_it_prints_that_it_compiles(cxx, capsys):
    cxx(WRITES)
    made = building.cached_library()
    (line,) = capsys.readouterr().err.splitlines()
    assert str(made) in line
    assert 'a minute' in line
    assert building.cached_library() == made
    assert capsys.readouterr().err == ''


def test_a_damaged_library_is_compiled_again(cxx):
    log = cxx(WRITES)
    made = building.cached_library()
    with made.open('r+') as file:
        file.truncate(5)
    assert building.cached_library() == made
    assert made.read_text() == 'whole library\n'
    made.unlink()
    assert building.cached_library().read_text() == 'whole library\n'
    assert links(log) == 3
    assert sorted(p.suffix for p in made.parent.iterdir()) == [
        '', '.sha256', '.so',
    ]  # fmt: skip


def test_a_library_that_cannot_be_loaded_is_compiled_again_once(cxx):
    log = cxx(WRITES)
    with pytest.raises(LibraryError, match='cannot be loaded'):
        library.load_library()
    assert links(log) == 2


def test_without_a_home_the_cache_is_a_temporary_folder(
    cxx, monkeypatch, tmp_path
):
    """A user of a container who has neither HOME nor a passwd entry."""

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    cxx(WRITES)
    monkeypatch.delenv('FGC_MM_CACHE')
    monkeypatch.setattr(Path, 'home', homeless)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    made = building.cached_library()
    folder = tmp_path / f'fgc_mm-{os.getuid()}'
    assert folder in made.parents
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, 'getuid', lambda: 54321)
    folder.rename(tmp_path / 'fgc_mm-54321')
    with pytest.raises(LibraryError, match='another user'):
        building.cached_library()


def test_the_cache_may_be_in_the_home(cxx, monkeypatch, tmp_path):
    """A ~ that no shell has replaced, as in a settings file."""
    cxx(WRITES)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('FGC_MM_CACHE', '~/cache')
    assert tmp_path / 'cache' in building.cached_library().parents


def test_a_home_that_cannot_be_written_is_passed_over(
    cxx, monkeypatch, tmp_path
):
    cxx(WRITES)
    (tmp_path / 'file').touch()
    monkeypatch.delenv('FGC_MM_CACHE')
    monkeypatch.setattr(Path, 'home', lambda: tmp_path / 'file')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    assert (
        tmp_path / f'fgc_mm-{os.getuid()}' in building.cached_library().parents
    )


def test_where_nothing_can_be_written(cxx, monkeypatch, tmp_path):
    cxx('exit 0')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('FGC_MM_CACHE', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(LibraryError, match='set FGC_MM_CACHE'):
        building.cached_library()


def test_two_processes_compile_once(cxx):
    """The compiler is a script that counts its runs and takes its time."""
    log = cxx('sleep 0.1\n' + WRITES)
    fork = get_context('fork')
    children = [fork.Process(target=building.cached_library) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert building.cached_library().read_text() == 'whole library\n'
    assert links(log) == 1


def test_where_no_file_can_be_locked(cxx, monkeypatch):
    """Windows has no fcntl."""
    monkeypatch.setitem(__import__('sys').modules, 'fcntl', None)
    cxx(WRITES)
    assert building.cached_library().read_text() == 'whole library\n'


def test_the_key_depends_on_sources_and_options(monkeypatch, tmp_path):
    monkeypatch.delenv('CXX', raising=False)
    key, sources = building.cache_key(), building.sources_key()
    assert key == building.cache_key()
    monkeypatch.setenv('CXX', 'clang++')
    assert building.cache_key() != key
    assert building.sources_key() == sources
    monkeypatch.delenv('CXX')
    with monkeypatch.context() as patch:
        patch.setattr(build_options, 'FLAGS', (*build_options.FLAGS, '-g'))
        assert building.sources_key() != sources
    (tmp_path / 'fgc.h').touch()
    monkeypatch.setattr(building, 'SOURCES', tmp_path)
    assert building.cache_key() != key


def test_no_library_is_made_for_the_cpu_of_one_node(monkeypatch):
    """All that it needs of a CPU has a name, and is looked for."""
    monkeypatch.setattr('platform.machine', lambda: 'x86_64')
    found = {}
    for name, _, flags in build_options.compilations(build_options.SOURCES):
        found[name] = [flag for flag in flags if flag.startswith('-m')]
    for build in build_options.builds():
        flags = found.pop(f'kernel.{build.name}.o')
        assert set(flags) >= {f'-m{need}' for need in build.needs}
        assert not any('native' in flag for flag in flags)
    for source, build in build_options.BFLOAT16.items():
        flags = found.pop(source.replace('.cpp', '.o'))
        assert set(flags) == {f'-m{need}' for need in build.needs}
    assert not any(found.values())


def test_other_architectures_have_one_build(monkeypatch):
    monkeypatch.setattr('platform.machine', lambda: 'aarch64')
    assert [build.name for build in build_options.builds()] == ['baseline']
    commands = build_options.compilations(build_options.SOURCES)
    assert not any(f.startswith('-m') for *_, flags in commands for f in flags)


def ship(folder, content=b'library'):
    folder.mkdir()
    (folder / build_options.NAME).write_bytes(content)
    note = cache.checksum_file(folder / build_options.NAME)
    note.write_text(cache.checksum(folder / build_options.NAME))
    (folder / library.KEY).write_text(building.sources_key())


def test_a_shipped_library_is_taken(fresh, monkeypatch):
    ship(library.SHIPPED)
    monkeypatch.setattr(library, 'open_library', lambda path: path)
    monkeypatch.setattr(
        library, 'cached_library', lambda: pytest.fail('compiled')
    )
    assert library.load_library() == fresh / 'shipped' / build_options.NAME


def test_a_shipped_library_that_was_damaged_is_not(cxx, monkeypatch):
    cxx(WRITES)
    ship(library.SHIPPED)
    (library.SHIPPED / build_options.NAME).write_bytes(b'libr')
    monkeypatch.setattr(library, 'open_library', lambda path: path)
    assert library.load_library() == building.cached_library()


def test_a_shipped_library_of_older_sources_is_not(cxx, monkeypatch):
    cxx(WRITES)
    ship(library.SHIPPED)
    monkeypatch.setattr(library, 'open_library', lambda path: path)
    monkeypatch.setattr(build_options, 'FLAGS', (*build_options.FLAGS, '-g'))
    assert library.load_library() == building.cached_library()


def test_a_shipped_library_of_another_system_is_not(cxx, monkeypatch):
    cxx(WRITES)
    ship(library.SHIPPED)

    def open_library(path):
        if path.parent == library.SHIPPED:
            raise OSError('GLIBC_2.99 not found')
        return path

    monkeypatch.setattr(library, 'open_library', open_library)
    assert library.load_library() == building.cached_library()


def test_a_library_of_another_interface_is_refused(tmp_path):
    with pytest.raises(OSError):
        library.open_library(tmp_path / 'none.so')
    name = 'libc.so.6'
    with pytest.raises(OSError, match='lacks fgc_'):
        library.open_library(Path(name))


def test_a_missing_checksum(tmp_path):
    file = tmp_path / 'library.so'
    file.write_text('a')
    assert not cache.is_intact(file)
    cache.store_library(file, file)
    assert cache.is_intact(file)
    cache.invalidate(file)
    assert not cache.is_intact(file)
