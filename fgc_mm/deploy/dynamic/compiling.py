"""Compiling the kernel, and keeping what was compiled."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fgc_mm.deploy.dynamic.builds import Build
from fgc_mm.engine.atomic_file import write_atomically

SOURCES = Path(__file__).parent / 'csrc'
NAME = 'fgc_mm_kernel'
FLAGS = (
    '-O3',
    '-ffp-contract=fast',
    '-std=c++17',
    '-fopenmp',
    '-fvisibility=hidden',  # two builds in one process share nothing
    '-shared',
    '-fPIC',
)
SECONDS = 900
ANOTHER = 'install g++ (or set CXX to a compiler of C++17)'


class CannotCompile(Exception):
    """In words: what is wrong; behind a semicolon the remedy."""


def built(build: Build) -> Path:
    """The shared library of a build; compiled if there is none, or a bad one.

    Raises:
        CannotCompile: It is not there and cannot be made.
    """
    problems = []
    command = _command(build)
    for folder in cache_folders():
        try:
            _refuse_strangers(folder)
            return _library(folder / _key(command), build, command)
        except OSError as error:
            problems.append(f'{folder}: {error.strerror or error}')
    raise CannotCompile(
        f'the library cannot be kept ({", ".join(problems)}); set '
        'FGC_MM_CACHE to a folder that can be written'
    )


def cache_folders() -> list[Path]:
    """Where libraries are kept: the first that can be used.

    ``FGC_MM_CACHE``; without it ~/.cache/fgc_mm, and where there is no such
    home a folder of this user in the system's place for temporary files.
    """
    named = os.environ.get('FGC_MM_CACHE')
    if named:
        return [Path(named)]
    folders = []
    with contextlib.suppress(RuntimeError):  # no HOME, and no passwd entry
        folders.append(Path.home() / '.cache' / 'fgc_mm')
    return [*folders, _temporary()]


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f'fgc_mm-{os.getuid()}'


def discard(library: Path) -> None:
    """Let a library be compiled anew when it is next asked for."""
    _checksum_file(library).unlink(missing_ok=True)


def _library(folder: Path, build: Build, command: Sequence[str]) -> Path:
    library = folder / f'{NAME}.so'
    if _intact(library):
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / 'lock'):
        if not _intact(library):
            print(
                f'fgc_mm compiles its kernel ({build.name}), once for this '
                f'cache, in about a minute: {library}',
                file=sys.stderr,
                flush=True,
            )
            _compile(library, command)
    return library


def _refuse_strangers(folder: Path) -> None:
    """Where every user may write, a library of another one is not run."""
    if folder != _temporary():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(0, 'it belongs to another user')


def _checksum_file(library: Path) -> Path:
    return library.with_suffix('.sha256')


def _intact(library: Path) -> bool:
    """Whether the file is what the compiler gave."""
    file = _checksum_file(library)
    return (
        library.exists()
        and file.exists()
        and file.read_text() == _checksum(library)
    )


def _checksum(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # the system drops the lock of a process that dies
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(library: Path, command: Sequence[str]) -> None:
    part = library.with_name(f'.{library.name}.{os.getpid()}.part')
    try:
        _run([*command, '-o', str(part)])
        checksum = _checksum(part)
        part.replace(library)
        write_atomically(checksum.encode(), _checksum_file(library))
    finally:
        part.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> None:
    """The compiler, its failures in words."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise CannotCompile(
            f'{command[0]} had not ended after {SECONDS} s; compile once '
            'where more is free: the cache is kept'
        ) from error
    except OSError as error:
        raise CannotCompile(
            f'the compiler {command[0]} cannot be run ({error.strerror}); '
            f'{ANOTHER}'
        ) from error
    if done.returncode:
        raise CannotCompile(_why(done))


def _why(done: subprocess.CompletedProcess) -> str:
    said = done.stderr
    if done.returncode < 0 or 'Killed' in said or 'out of memory' in said:
        return (
            f'the compiler {done.args[0]} was killed, as happens where '
            'memory runs out (it takes 2 GB); free some, or compile once '
            'elsewhere: the cache is kept'
        )
    version = sysconfig.get_python_version()
    if 'Python.h' in said:
        return (
            'the header Python.h is missing; install those of Python '
            f'{version} (python3-dev)'
        )
    lines = [line for line in said.splitlines() if 'error' in line]
    lines = lines or said.splitlines() or [f'exit code {done.returncode}']
    return f'{done.args[0]} failed ({lines[0].strip()}); {ANOTHER}'


def _compiler() -> list[str]:
    """The command of CXX, which may have arguments."""
    named = os.environ.get('CXX', '')
    try:
        return shlex.split(named) or ['g++']
    except ValueError as error:
        raise CannotCompile(
            f'CXX={named!r} is no command ({error}); {ANOTHER}'
        ) from error


def _command(build: Build) -> list[str]:
    """The compiler with all that it needs, but for the output's name."""
    # a linker drops the libraries that come before what needs them
    source = str(SOURCES / 'kernel.cpp')
    return [*_compiler(), source, *FLAGS, *build.flags, *_torch_flags()]


@functools.cache
def _torch_flags() -> tuple[str, ...]:
    # says at import that there is no CUDA, which nobody has asked
    from torch.utils import cpp_extension

    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    includes = [*cpp_extension.include_paths(), sysconfig.get_path('include')]
    libraries = cpp_extension.library_paths()
    return (
        f'-DTORCH_EXTENSION_NAME={NAME}',
        f'-D_GLIBCXX_USE_CXX11_ABI={abi}',
        *[f'-isystem{path}' for path in includes],
        *[f'-L{path}' for path in libraries],
        *['-lc10', '-ltorch_cpu', '-ltorch', '-ltorch_python'],
    )


def _key(command: Sequence[str]) -> str:
    """Another source, torch, Python or command gives another library.

    The command names the instruction sets, so nodes of a cluster that share
    a home take what they can run.
    """
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    machine = platform.machine()
    soabi = str(sysconfig.get_config_var('SOABI'))
    for text in (torch.__version__, machine, soabi, *command):
        digest.update(text.encode())
    return digest.hexdigest()[:16]
