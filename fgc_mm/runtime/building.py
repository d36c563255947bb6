"""Compiling the library, shared by all processes of a user."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

from fgc_mm.runtime.build_options import NAME, SOURCES, compilations, linking
from fgc_mm.runtime.cache import (
    cache_folders,
    checksum_file,
    file_lock,
    is_intact,
    refuse_foreign_folder,
    store_library,
)
from fgc_mm.runtime.compiler import compiler, run
from fgc_mm.runtime.cpu import usable_cores
from fgc_mm.runtime.errors import LibraryError

KEY = 'sources.key'  # beside a shipped library: hash of its sources
MAX_COMPILERS = 4  # parallel compilers, 300 MB each


def cached_library() -> Path:
    """The library in the cache; compiled if it is missing or damaged.

    Raises:
        LibraryError: It is missing and cannot be compiled.
    """
    problems = []
    key = cache_key()
    for folder in cache_folders():
        try:
            refuse_foreign_folder(folder)
            return _library(folder / key)
        except OSError as error:
            problems.append(f'{folder}: {error.strerror or error}')
    raise LibraryError(
        f'the library cannot be stored ({", ".join(problems)}); set '
        'FGC_MM_CACHE to a writable folder.'
    )


def sources_key() -> str:
    """Hash of the sources and the build commands."""
    recipe = compilations(SOURCES), linking([])
    digest = hashlib.sha256(repr(recipe).encode())
    # the files that setup.cfg packages
    for source in sorted([*SOURCES.glob('*.cpp'), *SOURCES.glob('*.h')]):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def cache_key() -> str:
    """Hash of the sources, the compiler's command and the machine."""
    machine = sys.platform, platform.machine()
    text = repr((sources_key(), compiler(), machine))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compile_shipped(folder: Path) -> list[Path]:
    """Compile the library that is installed with the package.

    Args:
        folder: Where :func:`fgc_mm.runtime.library.shipped_library` looks.

    Returns:
        The files; current ones are not written again.

    Raises:
        LibraryError: The compiler fails.
        OSError: The folder is not writable.
    """
    library, key, sources = folder / NAME, folder / KEY, sources_key()
    current = key.exists() and key.read_text() == sources
    if not (current and is_intact(library)):
        folder.mkdir(parents=True, exist_ok=True)
        key.unlink(missing_ok=True)
        compile_library(library)
        key.write_text(sources)
    return [library, checksum_file(library), key]


def compile_library(library: Path) -> None:
    """Compile the library under a temporary name, then rename it.

    Raises:
        LibraryError: The compiler fails.
        OSError: The folder is not writable.
    """
    from tempfile import TemporaryDirectory  # slow to import, rarely needed

    with TemporaryDirectory(
        suffix='.part',
        prefix=f'.{library.name}.',
        dir=library.parent,
        ignore_cleanup_errors=True,
    ) as folder:
        part = Path(folder, library.name)
        objects = _compile_all(Path(folder))
        run([*compiler(), *linking(objects)], part)
        store_library(part, library)


def _library(folder: Path) -> Path:
    library = folder / NAME
    if is_intact(library):
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / 'lock'):
        if not is_intact(library):
            print(
                'fgc_mm compiles its runtime, once for this cache; this '
                f'takes about a minute: {library}',
                file=sys.stderr,
                flush=True,
            )
            compile_library(library)
    return library


def _compile_all(folder: Path) -> list[Path]:
    """Compile the object files, a few in parallel."""
    from concurrent.futures import ThreadPoolExecutor  # rarely needed

    cxx = compiler()
    tasks = {}
    with ThreadPoolExecutor(min(MAX_COMPILERS, usable_cores())) as pool:
        for name, source, options in compilations(SOURCES):
            command = [*cxx, *options, str(SOURCES / source)]
            tasks[folder / name] = pool.submit(run, command, folder / name)
        try:
            for task in tasks.values():
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [*tasks]


if __name__ == '__main__':  # python -m fgc_mm.runtime.building libfgc.so
    try:
        compile_library(Path(*(sys.argv[1:] or [NAME])).resolve())
    except (LibraryError, OSError) as error:
        sys.exit(f'error: {error}')
