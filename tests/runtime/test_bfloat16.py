"""Convs of bfloat16: exact where bfloat16 is, and rounded where it is not."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from fgc_mm.runtime import format as f
from fgc_mm.runtime.library import (
    can_multiply_bfloat16,
    has_bfloat16,
    load_library,
)
from tests.runtime import naive
from tests.runtime.programs import Array, Failure, Loaded, check, library
from tests.runtime.test_kernel import Random

CAN_MULTIPLY = can_multiply_bfloat16()
needs_bfloat16 = pytest.mark.skipif(
    not CAN_MULTIPLY, reason='this CPU does not multiply bfloat16'
)


def build_names() -> list[str | None]:
    """The builds of the library that multiply bfloat16, or ``[None]``."""
    names = ('bfloat16-amx', 'bfloat16-avx512')
    peaks = {name: library().fgc_peak(name.encode(), 0.0) for name in names}
    return [name for name in names if peaks[name] > 0] or [None]


every_build = pytest.mark.parametrize('build', build_names())


class Integers(Random):
    """Its numbers are small integers, which bfloat16 has exactly."""

    def normal(self, *shape: int) -> Array:
        return self.random.integers(-3, 4, shape).astype(np.float32)


def integer_conv(seed: int) -> tuple[f.Program, list[int]]:
    """A random conv, and the channels of its output that are written.

    Weights are multiples of 4: Winograd's transformed ones are integers too.
    """
    m = Integers(seed=seed)
    k, stride = m.pick(1, 3, 3, 5), m.pick(1, 1, 2)
    p = m.pick(0, 1, 2) if k > 1 else 0
    size = m.pick(6, 14, 17, 28), m.pick(6, 14, 17, 28)
    if k == 1 and m.pick(0, 1):  # tokens
        size, stride = (1, m.pick(17, 65)), 1
    to = [(n + 2 * p - k) // stride + 1 for n in size]
    ins, outs = m.pick(3, 16, 17, 64, 70), m.pick(16, 17, 65, 97, 130)
    in_set, read = m.maybe_set(ins)
    out_set, written = m.maybe_set(outs)
    x = m.filled((ins, *size), None if in_set == f.ALL else read)
    y = m.somewhere((outs, *to))
    add = f.NONE
    if m.pick(0, 1):
        add = m.filled((outs, *to)) if m.pick(0, 1) else y
        if add == y:
            m.fill(y, m.normal(outs, *to))
    taps = k * k
    by_input = m.pick(0, 1)
    m.op(
        f.Conv(
            x, y, add, in_set, out_set, 1, (k, k), (stride, stride), (p, p),
            (1, 1), m.weight(4 * m.normal(outs, ins, k, k)),
            taps if by_input else ins * taps,
            outs * taps if by_input else taps,
            (m.pick(0, 1) and m.weight(m.normal(outs))) or f.NONE,
            f.Activation(f.Act.RELU if m.pick(0, 1) else f.Act.NONE),
        )
    )  # fmt: skip
    program = m.finished(y)
    program.bfloat16 = True
    return program, written


def conv_by_taps(s: naive.State, op: f.Conv) -> None:
    """A dense conv of numpy, tap by tap."""
    x, y = s.values[op.x], s.values[op.y].copy()
    read = list(s.channels(op.in_set, len(x)))
    p, step, (high, long) = op.padding[0], op.stride[0], op.kernel
    wide = np.pad(x[read], ((0, 0), (p, p), (p, p)))
    h, w = y.shape[1:]
    for o in s.channels(op.out_set, len(y)):
        at = op.weight + o * op.out_step + np.array(read, int) * op.in_step
        bias = 0.0 if op.bias == f.NONE else s.weights[op.bias + o]
        total = np.full((h, w), bias)
        for t in range(high * long):
            r, c = divmod(t, long)
            rows = slice(r, r + step * (h - 1) + 1, step)
            columns = slice(c, c + step * (w - 1) + 1, step)
            total += np.tensordot(s.weights[at + t], wide[:, rows, columns], 1)
        if op.add != f.NONE:
            total += s.values[op.add][o]
        y[o] = naive.activate(total, op.act)
    s.values[op.y] = y


@pytest.mark.parametrize('seed', range(60))
def test_integers_are_exact(seed: int) -> None:
    """Any layout, lists, stride, Winograd; closed channels hold nan."""
    program, written = integer_conv(seed)
    expect_exact(program, written, 1 + seed % 2)


def expect_exact(program: f.Program, written: list[int], threads: int) -> None:
    saved = naive.COMPUTE[f.Conv]
    naive.COMPUTE[f.Conv] = conv_by_taps
    try:
        for build in build_names():
            check(
                program, listed={0: written}, threads=threads, tolerance=1e-6,
                build=build,
            )  # fmt: skip
    finally:
        naive.COMPUTE[f.Conv] = saved


def plain_conv(
    m: Integers,
    size: tuple[int, int],
    channels: tuple[int, int],
    k: int,
    sets: tuple[int, int] = (f.ALL, f.ALL),
    numbers: Array | None = None,
) -> int:
    """Adds a conv that keeps the size; its output."""
    ins, outs = channels
    x, y = m.value((ins, *size)), m.value((outs, *size))
    m.fill(x, m.normal(ins, *size) if numbers is None else numbers)
    m.op(
        f.Conv(
            x, y, f.NONE, *sets, 1, (k, k), (1, 1), (k // 2, k // 2), (1, 1),
            m.weight(4 * m.normal(outs, ins, k, k)), ins * k * k, k * k,
            m.weight(m.normal(outs)),
        )
    )  # fmt: skip
    return y


@pytest.mark.parametrize('ins', [9, 40])
@pytest.mark.parametrize('listed', [False, True])
def test_threads_give_the_same_bits(ins: int, listed: bool) -> None:
    """Large maps, of which threads compute several blocks."""
    m = Integers(seed=ins)
    outs = 130
    written = [*range(0, outs, 1 + listed)]
    sets = (
        m.set(ins, range(0, ins, 2)) if listed else f.ALL,
        m.set(outs, written) if listed else f.ALL,
    )
    program = m.finished(plain_conv(m, (90, 96), (ins, outs), 3, sets))
    program.bfloat16 = True
    expect_exact(program, written, 4)
    for build in build_names():
        loaded = Loaded(f.encode(program), build)
        alone = loaded.run(NOTHING[None])[0].view(np.int32)
        for threads in (2, 3, 4):
            found = loaded.run(NOTHING[None], threads)[0].view(np.int32)
            np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize('ins, opened', [(9, 5), (17, 17), (40, 9), (70, 33)])
def test_memory_of_earlier_layers_is_not_read(ins: int, opened: int) -> None:
    """Of a layer whose pixels are nan, and whose planes are more."""
    m = Integers(seed=ins)
    size, outs = (12, 13), 20
    channels = 128 if ins > 16 else 16
    nan = np.full((channels, *size), np.nan, np.float32)
    spoiled = plain_conv(m, size, (channels, outs), 3, numbers=nan)
    listed = f.ALL if opened == ins else m.set(ins, range(opened))
    found = plain_conv(m, size, (ins, outs), 3, (listed, f.ALL))
    program = m.finished(spoiled, found)
    program.bfloat16 = True
    saved = naive.COMPUTE[f.Conv]
    naive.COMPUTE[f.Conv] = conv_by_taps
    try:
        for build in build_names():
            outputs = check(program, tolerance=1e-6, build=build)
            assert np.isfinite(outputs[1]).all()
    finally:
        naive.COMPUTE[f.Conv] = saved


@needs_bfloat16
@every_build
@pytest.mark.parametrize('ins, taken', [(3, 'amx'), (16, ''), (64, '')])
def test_which_convs_are_taken(build: str, ins: int, taken: str) -> None:
    m = Integers()
    program = m.finished(plain_conv(m, (8, 8), (ins, 16), 3))
    program.bfloat16 = True
    loaded = Loaded(f.encode(program), build)
    expected = b'bfloat16' if taken in build else b'float32'
    assert loaded.code.fgc_precision(loaded.handle) == expected


def long_kernel() -> f.Program:
    """A kernel that reaches further than what may be read behind memory."""
    m = Integers()
    y, x = m.value((16, 8, 21)), m.value((16, 8, 420))  # x is the last one
    m.fill(x, m.normal(16, 8, 420))
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, f.ALL, 1, (1, 400), (1, 1), (0, 0), (1, 1),
            m.weight(m.normal(16, 16, 1, 400)), 16 * 400, 400, f.NONE,
        )
    )  # fmt: skip
    program = m.finished(y)
    program.bfloat16 = True
    return program


def test_a_kernel_of_long_reach() -> None:
    """In the sanitizer's process, too."""
    expect_exact(long_kernel(), list(range(16)), 1)


def identity(numbers: Array, bfloat16: bool = True) -> f.Program:
    """A 1 x 1 conv that copies (16, H, W)."""
    m = Random()
    x, y = m.value(numbers.shape), m.value(numbers.shape)
    m.fill(x, numbers)
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, f.ALL, 1, (1, 1), (1, 1), (0, 0), (1, 1),
            m.weight(np.eye(16)), 16, 1, f.NONE,
        )
    )  # fmt: skip
    program = m.finished(y)
    program.bfloat16 = bfloat16
    return program


def rounded(x: Array) -> Array:
    """To the nearest bfloat16, of two to the even one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


NOTHING = np.zeros((1, 1, 1), np.float32)


@needs_bfloat16
@every_build
def test_inputs_are_rounded_to_the_nearest(build: str) -> None:
    numbers = np.random.default_rng(0).standard_normal((16, 8, 8))
    numbers[0, 0] = 1 + np.arange(8) / 256  # halves between two numbers
    numbers = numbers.astype(np.float32)
    loaded = Loaded(f.encode(identity(numbers)), build)
    np.testing.assert_array_equal(loaded.run(NOTHING[None])[0][0],
                                  rounded(numbers))  # fmt: skip
    exact = Loaded(f.encode(identity(numbers, False)))
    np.testing.assert_array_equal(exact.run(NOTHING[None])[0][0], numbers)


@needs_bfloat16
@every_build
def test_weights_are_rounded_to_the_nearest(build: str) -> None:
    weights = np.random.default_rng(1).standard_normal((16, 16))
    weights[0] = 1 + np.arange(16) / 256
    program = identity(np.eye(16).reshape(16, 4, 4).astype(np.float32))
    at = program.ops[-1].weight
    program.weights[at : at + 256] = weights.ravel()
    found = Loaded(f.encode(program), build).run(NOTHING[None])[0][0]
    np.testing.assert_array_equal(found.reshape(16, 16), rounded(weights))


@needs_bfloat16
@every_build
def test_nan_stays_nan(build: str) -> None:
    numbers = np.ones((16, 5, 5), np.float32)
    numbers[3, 2, 2] = np.nan
    found = Loaded(f.encode(identity(numbers)), build).run(NOTHING[None])[0][0]
    assert np.isnan(found[:, 2, 2]).all()
    assert np.isfinite(found[:, 0]).all()


def test_the_precision_is_known() -> None:
    numbers = np.ones((16, 5, 5), np.float32)
    half, whole = (
        Loaded(f.encode(identity(numbers, asked))) for asked in (True, False)
    )
    code = half.code
    expected = b'bfloat16' if has_bfloat16() else b'float32'
    assert code.fgc_precision(half.handle) == expected
    assert code.fgc_precision(whole.handle) == b'float32'


def test_it_is_used_where_it_is_faster() -> None:
    code = load_library()
    half, whole = (
        max(code.fgc_peak(build, 2e-3) for _ in range(5))
        for build in (b'bfloat16', None)
    )
    if half > 1.5 * whole:
        assert has_bfloat16()
    if half < 1.1 * whole:
        assert not has_bfloat16()


@needs_bfloat16
@pytest.mark.parametrize('build', ['bfloat16', *build_names()])
def test_it_is_used_where_it_is_named(build: str) -> None:
    numbers = np.ones((16, 5, 5), np.float32)
    for asked, precision in ((True, b'bfloat16'), (False, b'float32')):
        loaded = Loaded(f.encode(identity(numbers, asked)), build)
        assert loaded.code.fgc_precision(loaded.handle) == precision


@pytest.mark.skipif(CAN_MULTIPLY, reason='this CPU multiplies bfloat16')
def test_naming_it_elsewhere_is_refused() -> None:
    with pytest.raises(Failure, match="the build 'bfloat16' is none of"):
        Loaded(f.encode(identity(np.ones((16, 5, 5)))), 'bfloat16')


def test_an_unknown_precision_is_refused() -> None:
    data = bytearray(f.encode(identity(np.ones((16, 5, 5), np.float32))))
    assert struct.unpack_from('<Q', data, 48) == (1,)
    struct.pack_into('<Q', data, 48, 2)
    with pytest.raises(Failure, match='the header is not one of a model'):
        Loaded(bytes(data))
