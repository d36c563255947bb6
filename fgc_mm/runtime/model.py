"""A network loaded from a file, run by the library."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fgc_mm.errors import FGCError
from fgc_mm.runtime.calls import Function, PythonCalls, call_shapes
from fgc_mm.runtime.errors import RuntimeFileError
from fgc_mm.runtime.library import Options, load_library

ERROR_SIZE = 8192  # more than the longest path
_BAD_FILE, _UNREADABLE, _NO_MEMORY = 1, 2, 3


class Model:
    """A loaded network; it may be shared by any number of threads.

    Made by :meth:`load` or :meth:`from_bytes`, and freed by :meth:`close`,
    at the end of a ``with`` block, or with the object.

    Attributes:
        image_shape: (channels, height, width) of an image.
        output_shapes: (channels, height, width) of every output.
        records: Number of outputs that are not decisions; they come first.
        build: Name of the build that runs it.
        precision: ``'bfloat16'`` if convs use it; ``'float32'`` if the file
            does not request it, or the CPU does not multiply it faster.
        meta: JSON of the file, see docs/runtime.md.
    """

    def __init__(
        self, handle: int, data: bytes, functions: Sequence[Function]
    ) -> None:
        code = self._code = load_library()
        self._handle, self._runs, self._closed = handle, 0, False
        self._lock = threading.Lock()
        self._functions = functions
        self._shapes = call_shapes(data) if functions else {}
        wanted = max(self._shapes, default=-1) + 1
        if functions and len(functions) < wanted:
            raise FGCError(
                f'the program calls {wanted} functions, and {len(functions)} '
                'are given; give all of them.'
            )
        self._cached_options: dict[
            tuple[bool, int], tuple[PythonCalls, Options]
        ] = {}
        self.image_shape, *self.output_shapes = (
            self._shape(k) for k in range(-1, code.fgc_outputs(handle))
        )
        self.records: int = code.fgc_records(handle)
        self.build: str = code.fgc_build(handle).decode()
        self.precision: str = code.fgc_precision(handle).decode()
        self.meta = self._read_meta()

    @classmethod
    def load(
        cls,
        path: str | Path,
        build: str | None = None,
        functions: Sequence[Function] = (),
    ) -> Model:
        """Load a model from a file.

        Args:
            path: The file.
            build: One of :func:`fgc_mm.runtime.library.builds`. ``None``:
                the fastest. ``'bfloat16'``: the fastest, but files that
                request bfloat16 are computed in it even if it is slower;
                ``'bfloat16-amx'`` and ``'bfloat16-avx512'`` are its builds.
            functions: Compute the CALL ops of the program: function n gets
                lists of (C, H, W) arrays, its inputs and its outputs.

        Raises:
            RuntimeFileError: The file cannot be read, or is not a model.
            FGCError: There is no such build, the CPU cannot run it, or there
                are fewer functions than the program calls.
            MemoryError: The model needs more memory than the machine has.
            LibraryError: The library cannot be compiled.
        """
        name = os.fsencode(path)
        if b'\0' in name:  # would end the string in C
            raise RuntimeFileError(
                f'{str(path)!r} contains a zero byte, which no path may; '
                'correct it.'
            )
        if functions:
            return cls.from_bytes(_read(path), build, functions)
        handle, code = ctypes.c_void_p(), load_library()
        _call(
            code.fgc_load_file, name, _encoded(build), handle, path=str(path)
        )
        return cls(handle.value or 0, b'', ())

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        build: str | None = None,
        functions: Sequence[Function] = (),
    ) -> Model:
        """Load a model from the bytes of a file, like :meth:`load`."""
        handle, code = ctypes.c_void_p(), load_library()
        given = np.frombuffer(data, np.uint8)
        size = given.size
        _call(code.fgc_load, given.ctypes.data, size, _encoded(build), handle)
        return cls(handle.value or 0, data, functions)

    def run(
        self, images: np.ndarray, decisions: bool = False, threads: int = 1
    ) -> list[np.ndarray]:
        """The outputs for some images.

        Args:
            images: (N, C, H, W) floating point, preprocessed.
            decisions: Also compute and return the gates' decisions.
            threads: Number of threads, which run several images in parallel,
                or parts of an op for a single image.

        Returns:
            For every output (N, C, H, W) float32; without ``decisions`` only
            the first ``records`` of them.

        Raises:
            FGCError: Images of another shape or dtype, or the model is
                closed.
        """
        images = self._as_input(images)
        wanted = self.output_shapes[: None if decisions else self.records]
        outputs = [np.empty((len(images), *s), np.float32) for s in wanted]
        self.run_at(
            images.ctypes.data,
            len(images),
            [output.ctypes.data for output in outputs],
            decisions,
            threads,
        )
        return outputs

    def run_at(
        self,
        images: int,
        count: int,
        outputs: Sequence[int],
        decisions: bool = False,
        threads: int = 1,
    ) -> None:
        """As :meth:`run`, with addresses that the caller guarantees valid.

        Args:
            images: Address of (N, C, H, W) contiguous float32.
            count: N.
            outputs: Addresses of (N, C, H, W) contiguous float32 that are
                written to, in the order of :attr:`output_shapes`; without
                ``decisions`` the first ``records`` of them.
            decisions, threads: As in :meth:`run`.
        """
        pointers = (ctypes.c_void_p * len(self.output_shapes))(*outputs)
        calls, options = self._options(decisions, threads)
        run = self._code.fgc_run
        with self._in_use() as handle:
            _call(run, handle, images, count, pointers, options)
        calls.raise_error()

    def profile(
        self,
        image: np.ndarray,
        repeats: int = 10,
        decisions: bool = False,
        threads: int = 1,
    ) -> list[tuple[str, float]]:
        """Time of each op: its name, and the minimum over the runs in seconds.

        Args:
            image: (C, H, W), or (1, C, H, W).
            repeats: Number of runs.
            decisions, threads: As in :meth:`run`.

        Raises:
            FGCError: As in :meth:`run`, or several images.
        """
        images = np.asarray(image)
        images = self._as_input(images if images.ndim == 4 else images[None])
        if len(images) != 1:
            raise FGCError(
                f'{len(images)} images are given, but the times are those of '
                'one image; give one.'
            )
        calls, options = self._options(decisions, threads)
        with self._in_use() as handle:
            seconds = np.zeros(self._code.fgc_ops(handle))
            _call(
                self._code.fgc_profile, handle, images.ctypes.data, repeats,
                options, seconds.ctypes.data,
            )  # fmt: skip
        calls.raise_error()
        names = self.meta.get('names')
        if not isinstance(names, list) or len(names) != len(seconds):
            names = [f'op {number}' for number in range(len(seconds))]
        return list(zip(names, seconds.tolist()))

    def set_single_threaded(self, ops: Sequence[bool]) -> None:
        """Set for each op if it has one thread; not while the model runs."""
        flags = bytes(map(bool, ops))
        with self._in_use() as handle:
            _call(self._code.fgc_alone, handle, flags, len(flags))

    def close(self) -> None:
        """Free the memory as soon as no thread runs the model."""
        with self._lock:
            self._closed = True
            self._free_if_idle()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """Refuse copies (``copy`` and ``pickle``), which would share memory.

        Raises:
            FGCError: Always.
        """
        raise FGCError(
            'a loaded model cannot be copied or pickled, since its memory '
            'belongs to this object; share it, or load the file again.'
        )

    def __del__(self) -> None:
        if hasattr(self, '_lock'):
            self.close()

    @contextmanager
    def _in_use(self) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise FGCError(
                    'the model is closed and its memory is freed; load it '
                    'again.'
                )
            self._runs += 1
        try:
            yield self._handle
        finally:
            with self._lock:
                self._runs -= 1
                self._free_if_idle()

    def _free_if_idle(self) -> None:
        if self._closed and not self._runs and self._handle:
            self._code.fgc_free(self._handle)
            self._handle = 0

    def _as_input(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if images.dtype.kind != 'f':
            raise self._input_error(images.shape, images.dtype)
        self.check_shape(images.shape, images.dtype)
        return np.ascontiguousarray(images, np.float32)

    def check_shape(
        self, shape: Sequence[int], dtype: Any = 'float32'
    ) -> None:
        """Raise FGCError unless the shape is (N, *image_shape)."""
        if len(shape) != 4 or tuple(shape[1:]) != self.image_shape:
            raise self._input_error(shape, dtype)

    def _input_error(self, shape: Sequence[int], dtype: Any) -> FGCError:
        wanted = ', '.join(map(str, self.image_shape))
        return FGCError(
            f'images have shape {tuple(shape)} and dtype {dtype}, but the '
            f'network needs (N, {wanted}) floating point; preprocess them as '
            'described in the file.'
        )

    def _options(
        self, decisions: bool, threads: int
    ) -> tuple[PythonCalls, Options]:
        # numbers that do not fit into int64 would wrap around
        threads = max(-(2**62), min(threads, 2**62))
        decisions = bool(decisions)
        cached = self._cached_options.get((decisions, threads))
        if cached is not None:
            return cached
        calls = PythonCalls(self._functions, self._shapes)
        size = ctypes.sizeof(Options)
        options = Options(size, threads, decisions, calls.callback, None)
        if not self._functions:  # PythonCalls stores the error of one run
            self._cached_options[decisions, threads] = calls, options
        return calls, options

    def _shape(self, output: int) -> tuple[int, int, int]:
        shape = (ctypes.c_int64 * 3)()
        self._code.fgc_shape(self._handle, output, shape)
        return tuple(shape)

    def _read_meta(self) -> dict[str, Any]:
        size = ctypes.c_uint64()
        address = self._code.fgc_meta(self._handle, size)
        try:
            meta = json.loads(ctypes.string_at(address, size.value))
        except (ValueError, RecursionError) as error:
            raise RuntimeFileError(
                f"the file's JSON cannot be read ({error}); write the file "
                'again.'
            ) from error
        return meta if isinstance(meta, dict) else {}


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RuntimeFileError(
            f'{path} cannot be read ({error.strerror}); give the path of a '
            '.fgc file.'
        ) from error


def _encoded(build: str | None) -> bytes | None:
    return None if build is None else build.encode()


def _call(function: Any, *arguments: Any, path: str = '') -> None:
    """Call a function of the library; raise the error that it reports."""
    error = ctypes.create_string_buffer(ERROR_SIZE)
    result = function(*arguments, error, ERROR_SIZE)
    if not result:
        return
    message = error.value.decode(errors='replace')
    if result == _NO_MEMORY:
        raise MemoryError(message)
    if result not in (_BAD_FILE, _UNREADABLE):
        raise FGCError(message)
    raise RuntimeFileError(
        f'{path}: {message}' if path and path not in message else message
    )
