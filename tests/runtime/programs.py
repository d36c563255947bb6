"""Small programs, and running them in C++ and in numpy."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fgc_mm.runtime import format as f
from fgc_mm.runtime.library import CALL, Options, load_library, open_library
from tests.runtime import naive

Array = np.ndarray
ERROR_SIZE = 512


def library() -> ctypes.CDLL:
    """The library, or another one that FGC_TEST_LIBRARY names."""
    other = os.environ.get('FGC_TEST_LIBRARY')
    return open_library(Path(other)) if other else load_library()


class Failure(Exception):
    """A code of the library and its sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code}: {text}')
        self.code, self.text = code, text


class Loaded:
    """A program that the library has loaded."""

    def __init__(self, data: bytes, build: str | None = None) -> None:
        self.code = library()
        self.error = ctypes.create_string_buffer(ERROR_SIZE)
        self.handle = ctypes.c_void_p()
        build = build or os.environ.get('FGC_TEST_BUILD')
        name = build.encode() if build else None
        self.expect(
            self.code.fgc_load(
                data, len(data), name, ctypes.byref(self.handle),
                self.error, ERROR_SIZE,
            )
        )  # fmt: skip

    @property
    def outputs(self) -> int:
        return self.code.fgc_outputs(self.handle)

    def expect(self, result: int) -> None:
        if result:
            raise Failure(result, self.error.value.decode())

    def shape(self, number: int) -> tuple[int, int, int]:
        shape = (ctypes.c_int64 * 3)()
        assert self.code.fgc_shape(self.handle, number, shape) == 0
        return tuple(shape)

    def run(
        self,
        images: Array,
        threads: int = 1,
        decisions: bool = True,
        call: Callable | None = None,
    ) -> list[Array]:
        """Outputs (N, C, H, W); elements that are not written are nan."""
        images = np.ascontiguousarray(images, np.float32)
        count = self.outputs
        ys = [
            np.full((len(images), *self.shape(k)), np.nan, np.float32)
            for k in range(count)
        ]
        pointers = (ctypes.c_void_p * (count + 1))(
            *[y.ctypes.data for y in ys]
        )
        options = Options(
            size=ctypes.sizeof(Options), threads=threads, decisions=decisions
        )
        if call:
            options.call = CALL(call)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        result = self.code.fgc_run(
            self.handle, images.ctypes.data, len(images), pointers,
            ctypes.byref(options), error, ERROR_SIZE,
        )  # fmt: skip
        if result:
            raise Failure(result, error.value.decode())
        return ys

    def __del__(self) -> None:
        if getattr(self, 'handle', None):
            self.code.fgc_free(self.handle)


class Maker:
    """Puts a program together; the arena is full of nan at first.

    What no op writes is nan then, and shows wherever it is read.
    """

    def __init__(
        self, image: Sequence[int] = (1, 1, 1), seed: int = 0
    ) -> None:
        self.random = np.random.default_rng(seed)
        c, h, w = image
        self.program = f.Program(arena=64)
        self.program.values = [f.Value(c, h, w, f.Base.IMAGE, 0, h * w, w, 0)]
        self.weights: list[Array] = []
        self.used = 0

    def weight(self, numbers: Array) -> int:
        """Offset of weights that are added."""
        self.weights.append(np.asarray(numbers, np.float32).ravel())
        self.used += self.weights[-1].size
        return self.used - self.weights[-1].size

    def value(
        self,
        shape: Sequence[int],
        pad: int = 0,
        gap: int = 0,
        beside: int = 0,
        interleaved: bool = False,
    ) -> int:
        """A value of its own memory, which is full of nan.

        Args:
            shape: Channels, height, width.
            pad: Zeros around.
            gap: float32 between channels.
            beside: float32 between rows.
            interleaved: All channels of a row before the next row.
        """
        c, h, w = shape
        row = w + pad + beside
        channel = (h + 2 * pad) * row + gap
        if interleaved:
            channel, row = row, row * c + gap
        offset = self.program.arena + pad * (row + 1)
        end = offset + (c - 1) * channel + (h + pad) * row + pad
        value = f.Value(c, h, w, f.Base.ARENA, offset, channel, row, pad)
        self.program.values.append(value)
        self.program.arena = (end + 15) // 16 * 16
        return len(self.program.values) - 1

    def constant(self, numbers: Array) -> int:
        """A value (C, H, W) among the weights."""
        c, h, w = numbers.shape
        offset = self.weight(numbers)
        self.program.values.append(
            f.Value(c, h, w, f.Base.WEIGHTS, offset, h * w, w, 0)
        )
        return len(self.program.values) - 1

    def fill(self, value: int, numbers: Array) -> None:
        """An op that writes numbers into a value, and zeros around it."""
        self.op(f.Unary(self.constant(numbers), value, f.ALL))

    def set(self, channels: int, listed: Sequence[int]) -> int:
        """A set that a LIST op fills."""
        self.program.sets.append(channels)
        mask = np.zeros((channels, 1, 1))
        mask[list(listed)] = 1
        number = len(self.program.sets) - 1
        self.op(f.List(self.constant(mask), number))
        return number

    def op(self, op: f.Op) -> None:
        self.program.ops.append(op)

    def normal(self, *shape: int) -> Array:
        return self.random.standard_normal(shape).astype(np.float32)

    def finished(self, *outputs: int) -> f.Program:
        """The program; before its ops the whole arena becomes nan."""
        poison = len(self.program.values)
        self.program.values.append(
            f.Value(1, 1, self.program.arena, f.Base.ARENA, 0, 0,
                    self.program.arena, 0)
        )  # fmt: skip
        nan = self.constant(np.full((1, 1, 1), np.nan))
        self.program.ops.insert(
            0, f.Binary(nan, nan, poison, f.ALL, f.Math.ADD)
        )
        self.program.weights = np.concatenate(
            [*self.weights, np.zeros(1, np.float32)]
        )
        self.program.outputs = list(outputs)
        self.program.records = len(outputs)
        return self.program


def check(
    program: f.Program,
    image: Array | None = None,
    listed: dict[int, Sequence[int]] | None = None,
    threads: int = 1,
    tolerance: float = 2e-5,
    build: str | None = None,
) -> list[Array]:
    """C++ and numpy agree on all outputs that numpy has.

    Args:
        program: One that :class:`Maker` made.
        image: (C, H, W); zeros otherwise.
        listed: For outputs, which channels are compared; all otherwise.
        threads: Of the C++ run.
        tolerance: Relative to the largest number.
        build: Of the library.
    """
    if image is None:
        image = np.zeros(program.values[0].shape, np.float32)
    expected = naive.run(program, image)
    loaded = Loaded(f.encode(program), build)
    found = loaded.run(image[None], threads)
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        where = slice(None) if listed is None else list(listed[k])
        a, b = x[0][where].astype(np.float64), y[where]
        size = np.abs(b[np.isfinite(b)]).max(initial=1e-3)
        np.testing.assert_allclose(
            a, b, rtol=1e-5, atol=tolerance * size, err_msg=f'output {k}'
        )
    return found
