"""The C interface of the library (``csrc/fgc.h``), with ctypes."""

from __future__ import annotations

import ctypes
import functools
import threading
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_uint64,
    c_void_p,
)
from pathlib import Path

from fgc_mm.runtime.build_options import NAME
from fgc_mm.runtime.building import KEY, cached_library, sources_key
from fgc_mm.runtime.cache import invalidate, is_intact
from fgc_mm.runtime.errors import LibraryError, error_line

SHIPPED = Path(__file__).parent / 'lib'
VERSION = 1  # of the interface
_LOAD_LOCK = threading.Lock()

CALL = CFUNCTYPE(None, c_void_p, c_int64, POINTER(c_void_p), POINTER(c_void_p))


class Options(Structure):
    """``fgc_options``."""

    _fields_ = (
        ('size', c_int64),
        ('threads', c_int64),
        ('decisions', c_int64),
        ('call', CALL),
        ('context', c_void_p),
    )


_ERROR = (c_char_p, c_uint64)
# name: result, arguments
_FUNCTIONS = {
    'fgc_load': (
        c_int, c_void_p, c_uint64, c_char_p, POINTER(c_void_p), *_ERROR,
    ),
    'fgc_load_file': (
        c_int, c_char_p, c_char_p, POINTER(c_void_p), *_ERROR,
    ),
    'fgc_run': (
        c_int, c_void_p, c_void_p, c_int64, POINTER(c_void_p),
        POINTER(Options), *_ERROR,
    ),
    'fgc_profile': (
        c_int, c_void_p, c_void_p, c_int64, POINTER(Options), c_void_p,
        *_ERROR,
    ),
    'fgc_alone': (c_int, c_void_p, c_char_p, c_int64, *_ERROR),
    'fgc_free': (None, c_void_p),
    'fgc_ops': (c_int64, c_void_p),
    'fgc_outputs': (c_int64, c_void_p),
    'fgc_records': (c_int64, c_void_p),
    'fgc_shape': (c_int, c_void_p, c_int64, POINTER(c_int64)),
    'fgc_meta': (c_void_p, c_void_p, POINTER(c_uint64)),
    'fgc_build': (c_char_p, c_void_p),
    'fgc_precision': (c_char_p, c_void_p),
    'fgc_builds': (c_char_p,),
    'fgc_peak': (c_double, c_char_p, c_double),
    'fgc_bfloat16': (c_int,),
    'fgc_version': (c_int,),
}  # fmt: skip


def load_library() -> ctypes.CDLL:
    """The installed library, otherwise one from the cache.

    It is compiled if there is neither. Its functions run without Python's
    global interpreter lock.

    Raises:
        LibraryError: There is none, and none can be compiled.
    """
    with _LOAD_LOCK:  # the first thread compiles, the others wait
        found = _load_once()
    if isinstance(found, str):
        raise LibraryError(found)
    return found


@functools.cache
def _load_once() -> ctypes.CDLL | str:
    """The library, or an error message."""
    try:
        return _load()
    except LibraryError as error:
        return str(error)
    # any error: callers may continue without the library
    except Exception as error:
        return (
            f'the library cannot be compiled or loaded ({error_line(error)}); '
            'fix that.'
        )


def _load() -> ctypes.CDLL:
    shipped = shipped_library()
    if shipped is not None:
        try:
            return open_library(shipped)
        except OSError:  # built for another system, so compile it here
            pass
    library = cached_library()
    try:
        return open_library(library)
    except OSError:
        invalidate(library)  # perhaps built for another C library
    try:
        return open_library(cached_library())
    except OSError as error:
        raise LibraryError(
            f'the compiled library cannot be loaded ({error_line(error)}); '
            "set CXX to a compiler that builds libraries for this machine's "
            'Python.'
        ) from error


def shipped_library() -> Path | None:
    """The library installed with the package, if it is current and intact.

    In a checkout the sources may have changed since.
    """
    key, library = SHIPPED / KEY, SHIPPED / NAME
    try:
        current = key.read_text() == sources_key() and is_intact(library)
    except OSError:
        return None
    return library if current else None


def open_library(library: Path) -> ctypes.CDLL:
    """Load a library, and set the types of its functions.

    Raises:
        OSError: It cannot be loaded, or is another library.
    """
    code = ctypes.CDLL(str(library))
    for name, (result, *arguments) in _FUNCTIONS.items():
        try:
            function = getattr(code, name)
        except AttributeError as error:
            raise OSError(f'{library} lacks {name}') from error
        function.restype, function.argtypes = result, arguments
    if code.fgc_version() != VERSION:
        raise OSError(f'{library} is version {code.fgc_version()}')
    return code


def has_bfloat16() -> bool:
    """Whether programs that request bfloat16 are computed in it here.

    The library must be available, and the CPU must multiply bfloat16 at least
    1.3 times as fast as float32, which not every CPU with bfloat16 does.
    """
    try:
        return bool(load_library().fgc_bfloat16())
    except LibraryError:
        return False


def can_multiply_bfloat16() -> bool:
    """Whether the library is available and the CPU can multiply bfloat16.

    If that is not faster than float32, only the build ``'bfloat16'`` uses it.
    """
    try:
        return load_library().fgc_peak(b'bfloat16', 0.0) > 0
    except LibraryError:
        return False


def builds() -> list[str]:
    """Builds in the library that this CPU can run, the fastest first."""
    return load_library().fgc_builds().decode().split(',')
