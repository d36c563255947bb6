"""The compiled kernel: built on first use, kept for the next process."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from fgc_mm.errors import FGCError

SOURCES = Path(__file__).parent / 'csrc'
NAME = 'fgc_mm_kernel'
FLAGS = (
    '-O3',
    '-march=native',
    '-ffp-contract=fast',
    '-std=c++17',
    '-fopenmp',
    '-shared',
    '-fPIC',
)
BACKENDS = ('auto', 'kernel', 'torch')


def choose_kernel(backend: str) -> ModuleType | None:
    """The kernel for a backend, or ``None`` for plain torch.

    Args:
        backend: ``'kernel'``, ``'torch'``, or ``'auto'``: the kernel if
            it can be built, else torch with a warning.

    Raises:
        FGCError: Another backend, or a kernel that cannot be built.
    """
    if backend not in BACKENDS:
        raise FGCError(
            f'backend={backend!r} is none of {", ".join(BACKENDS)}; '
            "'auto' takes the compiled kernel where it can be built."
        )
    if backend == 'torch':
        return None
    kernel, problem = load_kernel()
    if kernel is None and backend == 'kernel':
        raise FGCError(
            f"backend='kernel' needs a C++ compiler, but {problem}; install "
            "g++ (or set CXX), or use backend='torch'."
        )
    if kernel is None:
        _warn_once(problem)
    return kernel


@functools.cache
def load_kernel() -> tuple[ModuleType | None, str]:
    """The kernel, or ``None`` and why there is none; tried once."""
    try:
        return _import(_built()), ''
    except subprocess.CalledProcessError as error:
        lines = [x for x in error.stderr.splitlines() if 'error' in x]
        return None, f'compiling failed ({(lines or ["?"])[0].strip()})'
    except (OSError, ImportError, subprocess.TimeoutExpired) as error:
        return None, f'it could not be built ({error})'


@functools.cache
def _warn_once(problem: str) -> None:
    warnings.warn(
        f'no compiled kernel, since {problem}: dynamic execution goes on in '
        'plain torch, which is slower; install g++ (or set CXX).',
        stacklevel=4,
    )


def cache_folder() -> Path:
    """Where built kernels are kept; ``FGC_MM_CACHE`` moves it."""
    named = os.environ.get('FGC_MM_CACHE')
    return Path(named) if named else Path.home() / '.cache' / 'fgc_mm'


def _built() -> Path:
    """The shared library; compiled if there is none for this key."""
    folder = cache_folder() / _key()
    library = folder / f'{NAME}.so'
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / 'lock'):
        if not library.exists():
            _compile(library)
    return library


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # the system drops the lock of a process that dies
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(library: Path) -> None:
    part = library.with_name(f'.{library.name}.{os.getpid()}.part')
    # a linker drops the libraries that come before what needs them
    command = [str(SOURCES / 'kernel.cpp'), *_command(), '-o', str(part)]
    command = [_compiler(), *command]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=900
        )
        part.replace(library)
    finally:
        part.unlink(missing_ok=True)


def _compiler() -> str:
    return os.environ.get('CXX', 'g++')


def _command() -> list[str]:
    """The compiler's flags."""
    # says at import that there is no CUDA, which nobody has asked
    from torch.utils import cpp_extension

    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    includes = [*cpp_extension.include_paths(), sysconfig.get_path('include')]
    libraries = cpp_extension.library_paths()
    return [
        *FLAGS,
        f'-DTORCH_EXTENSION_NAME={NAME}',
        f'-D_GLIBCXX_USE_CXX11_ABI={abi}',
        f'-DFGC_LANES={_lanes()}',
        *[f'-isystem{path}' for path in includes],
        *[f'-L{path}' for path in libraries],
        *['-lc10', '-ltorch_cpu', '-ltorch', '-ltorch_python'],
    ]


def _lanes() -> int:
    """Floats in a vector: what the CPU multiplies at once, or twice."""
    cpu = _cpu()
    if 'avx512f' in cpu and 'GenuineIntel' in cpu:
        return 16
    return 8 if 'avx' in cpu else 4


@functools.cache
def _cpu() -> str:
    """Vendor, model and instruction sets of the first core."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return platform.processor()
    first = text.split('\n\n')[0].splitlines()
    kept = ('vendor_id', 'model name', 'flags', 'Features')
    return '\n'.join(line for line in first if line.startswith(kept))


def _key() -> str:
    """Another source, torch, CPU or command gives another library."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    for text in (
        torch.__version__,
        _cpu(),
        ' '.join(_command()),
        os.environ.get('CXX', 'g++'),
    ):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def _import(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
