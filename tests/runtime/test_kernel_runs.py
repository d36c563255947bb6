"""Threads, several images, decisions, calls, and errors of the C interface."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from fgc_mm.runtime import format as f
from tests.runtime import naive
from tests.runtime.programs import (
    ERROR_SIZE,
    Array,
    Failure,
    Loaded,
    Maker,
    library,
)

SHAPE = (3, 16, 18)


def conv(
    m: Maker, x: int, y: int, in_set: int = f.ALL, out_set: int = f.ALL
) -> None:
    ins = m.program.values[x].channels
    outs = m.program.values[y].channels
    m.op(
        f.Conv(
            x, y, f.NONE, in_set, out_set, 1, (3, 3), (1, 1), (1, 1), (1, 1),
            m.weight(m.normal(outs, ins, 3, 3) / ins), ins * 9, 9,
            m.weight(m.normal(outs)), f.Activation(f.Act.RELU),
        )
    )  # fmt: skip


@cache
def gated() -> bytes:
    """A gate that chooses channels by the image; decisions are an output."""
    m = Maker(SHAPE)
    wide, means, logits, mask = (
        m.value(shape)
        for shape in ((24, 16, 18), (3, 1, 1), (24, 1, 1), (24, 1, 1))
    )
    inner = m.value((24, 16, 18), pad=1)
    out = m.value((7, 16, 18))
    vector = m.value((7, 1, 1))
    m.program.sets.append(24)
    m.op(f.Mean(0, means, f.ALL))
    m.op(
        f.Conv(
            means, logits, f.NONE, f.ALL, f.ALL, 1, (1, 1), (1, 1), (0, 0),
            (1, 1), m.weight(m.normal(24, 3)), 3, 1, f.NONE,
        )
    )  # fmt: skip
    m.op(f.Unary(logits, mask, f.ALL, f.Activation(f.Act.GREATER, 0.0)))
    m.op(f.List(mask, 0))
    conv(m, 0, inner, f.ALL, 0)
    conv(m, inner, out, 0, f.ALL)
    m.op(f.Mean(out, vector, f.ALL))
    record = f.Unary(logits, wide, f.ALL)
    record.records_only = True
    m.program.values[wide] = f.Value(
        24, 1, 1, f.Base.ARENA, m.program.values[wide].offset, 1, 1, 0
    )
    m.op(record)
    program = m.finished(vector, mask, wide)
    program.records = 1
    return f.encode(program)


def images(count: int) -> Array:
    random = np.random.default_rng(5)
    x = random.standard_normal((count, *SHAPE)).astype(np.float32)
    return x + random.standard_normal((count, 3, 1, 1)).astype(np.float32)


def test_decisions_are_computed_only_on_demand() -> None:
    loaded, x = Loaded(gated()), images(1)
    _, mask, record = loaded.run(x)
    assert not np.isnan(mask).any() and not np.isnan(record).any()
    first, mask, record = loaded.run(x, decisions=False)
    assert not np.isnan(first).any()
    assert np.isnan(mask).all() and np.isnan(record).all()


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_several_images(threads: int) -> None:
    loaded, x = Loaded(gated()), images(7)
    together = loaded.run(x, threads)
    for n in range(len(x)):
        for a, b in zip(together, loaded.run(x[n : n + 1]), strict=True):
            np.testing.assert_array_equal(a[n], b[0])
    assert len({mask.tobytes() for mask in together[1]}) > 1


def test_no_image() -> None:
    assert Loaded(gated()).run(images(0))[0].shape == (0, 7, 1, 1)


@pytest.mark.parametrize('threads', [1, 2])
def test_python_threads_share_a_model(threads: int) -> None:
    loaded, x = Loaded(gated()), images(8)
    expected = loaded.run(x)[0]

    def one(n: int) -> bool:
        found = loaded.run(x[n : n + 1], threads)[0]
        return np.array_equal(found[0], expected[n])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, list(range(8)) * 25))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_fork_while_other_threads_run() -> None:
    m = Maker()
    y = m.value((1, 1, 1))
    m.op(f.Unary(0, y, f.ALL, f.Activation(f.Act.RELU)))
    loaded, x = Loaded(f.encode(m.finished(y))), np.ones((16, 1, 1, 1), 'f4')
    done = threading.Event()

    def run_to_the_end() -> None:
        while not done.is_set():
            loaded.run(x, threads=16)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(run_to_the_end) for _ in range(4)]
        try:
            codes = []
            for _ in range(150):
                child = os.fork()
                if not child:
                    signal.alarm(30)
                    right = loaded.run(x, threads=16)[0].sum() == 16
                    os._exit(0 if right else 1)
                codes.append(os.waitpid(child, 0)[1])
        finally:
            done.set()
    assert not any(codes)
    assert all(one.exception() is None for one in running)


@pytest.mark.parametrize('threads', [2, 3])
def test_threads_within_a_conv(threads: int) -> None:
    """Many groups and chunks: every number is that of one thread."""
    m = Maker((8, 40, 40), seed=1)
    one, two = m.value((64, 40, 40), pad=1), m.value((64, 40, 40), pad=1)
    stride = m.value((96, 20, 20))
    conv(m, 0, one)
    conv(m, one, two)
    m.op(
        f.Conv(
            two, stride, f.NONE, f.ALL, f.ALL, 1, (3, 3), (2, 2), (1, 1),
            (1, 1), m.weight(m.normal(96, 64, 3, 3)), 64 * 9, 9, f.NONE,
        )
    )  # fmt: skip
    loaded = Loaded(f.encode(m.finished(stride)))
    x = m.normal(1, 8, 40, 40)
    alone = loaded.run(x)[0]
    for _ in range(20):
        found = loaded.run(x, threads)[0]
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)
    loaded.expect(
        library().fgc_alone(
            loaded.handle, bytes([1] * 4), 4, loaded.error, ERROR_SIZE
        )
    )
    np.testing.assert_array_equal(loaded.run(x, threads)[0], alone)


def test_calls() -> None:
    m = Maker((2, 3, 4))
    y, z = m.value((2, 3, 4), pad=1), m.value((1, 3, 4), interleaved=True)
    m.op(f.Call(41, [0, 0], [y, z]))
    program = m.finished(y, z)
    seen = []

    def function(number: int, xs: list[Array]) -> list[Array]:
        seen.append(number)
        return [xs[0] * 2, xs[1][:1] + 1]

    def call(_: int, number: int, xs: object, ys: object) -> None:
        kind = ctypes.POINTER(ctypes.c_float)
        shape = (2, 3, 4)
        arrays = [
            np.ctypeslib.as_array(ctypes.cast(xs[k], kind), shape)
            for k in range(2)
        ]
        for k, found in enumerate(function(number, arrays)):
            to = ctypes.cast(ys[k], kind)
            np.ctypeslib.as_array(to, found.shape)[:] = found

    x = m.normal(2, 3, 4)
    found = Loaded(f.encode(program)).run(x[None], call=call)
    for a, b in zip(found, naive.run(program, x, function), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-6)
    assert seen == [41, 41]
    with pytest.raises(Failure, match=r'options\.call') as error:
        Loaded(f.encode(program)).run(x[None])
    assert error.value.code == 4


def test_profile() -> None:
    loaded, x = Loaded(gated()), images(1)
    seconds = np.full(library().fgc_ops(loaded.handle), -1.0)
    loaded.expect(
        library().fgc_profile(
            loaded.handle, x.ctypes.data, 3, None, seconds.ctypes.data,
            loaded.error, ERROR_SIZE,
        )
    )  # fmt: skip
    assert (seconds >= 0).all() and seconds[-1] == 0  # records only
    assert seconds.sum() > 0


def test_builds() -> None:
    names = library().fgc_builds().decode().split(',')
    expected = Loaded(gated()).run(images(2))[0]
    for name in names:
        assert library().fgc_peak(name.encode(), 0.001) > 1e8
        loaded = Loaded(gated(), name)
        assert library().fgc_build(loaded.handle).decode() == name
        found = loaded.run(images(2))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(Failure, match='none of') as error:
        Loaded(gated(), 'z80')
    assert error.value.code == 4


def small(**changes: int) -> f.Program:
    """One of each that a file may have wrong."""
    m = Maker((2, 4, 4))
    y = m.value((2, 4, 4), pad=1)
    number = m.set(2, [0])
    conv(m, 0, y, f.ALL, number)
    program = m.finished(y)
    for name, value in changes.items():
        setattr(program.ops[-1], name, value)
    return program


BAD_OPS = {
    'x': [-1, 99, 1],
    'y': [0, 99, 2],
    'add': [-2, 99, 2],
    'in_set': [-2, 1, 99],
    'out_set': [-2, 1, 99],
    'groups': [0, -1, 3],
    'kernel': [(0, 3), (1 << 40, 3), (3, 4097), (200, 200)],
    'stride': [(0, 1), (1, -1), (1 << 40, 1)],
    'padding': [(-1, 1), (1, 1 << 40)],
    'dilation': [(0, 1), (1 << 50, 1)],
    'weight': [-1, 1 << 60, 50],
    'out_step': [-1, 1 << 60, 1000],
    'in_step': [-1, 1 << 60, 1000],
    'bias': [-2, 1 << 60],
    'act': [f.Activation(99), f.Activation(-1)],
}


@pytest.mark.parametrize(
    'name, value',
    [(k, value) for k, values in BAD_OPS.items() for value in values],
)
def test_bad_op(name: str, value: object) -> None:
    Loaded(f.encode(small()))
    with pytest.raises(Failure) as error:
        Loaded(f.encode(small(**{name: value})))
    assert error.value.code == 1
    assert 'op 2' in error.value.text


BAD_VALUES = {
    'channels': [0, -1, 1 << 40, 100000],
    'height': [0, 1 << 62, 400],
    'width': [0, 1 << 62, 400],
    'base': [-1, 3, 1],
    'offset': [-1, 0, 1 << 62, 1 << 30],
    'channel_step': [-1, 3, 1 << 62],
    'row_step': [-1, 3, 1 << 62],
    'pad': [-1, 1 << 62, 2000],
}


@pytest.mark.parametrize(
    'name, value',
    [(k, value) for k, values in BAD_VALUES.items() for value in values],
)
def test_bad_value(name: str, value: int) -> None:
    program = small()
    setattr(program.values[1], name, value)
    with pytest.raises(Failure) as error:
        Loaded(f.encode(program))
    assert error.value.code == 1


def test_too_large_a_model() -> None:
    program = small()
    program.arena = 1 << 39
    with pytest.raises(Failure, match='MB') as error:
        Loaded(f.encode(program))
    assert error.value.code == 3


def test_the_mean_of_a_large_map() -> None:
    m = Maker((1, 1500, 1501))
    y = m.value((1, 1, 1))
    m.op(f.Mean(0, y, f.ALL))
    x = np.random.default_rng(0).random((1, 1, 1500, 1501), np.float32)
    for build in library().fgc_builds().decode().split(','):
        (found,) = Loaded(f.encode(m.finished(y)), build).run(x)
        assert found.item() == pytest.approx(x.mean(dtype=float), rel=2e-6)


def test_a_list_has_no_channel_twice() -> None:
    for numbers, repeat in (
        ([0, 0], 1), ([1, 0, 1], 1), ([0, 1], 2), ([5], 1), ([1 << 62], 1),
        ([0], 1 << 40),
    ):  # fmt: skip
        program = small()
        program.sets += [3]
        program.ops.append(f.Join(1, [(f.ALL, repeat, numbers)]))
        with pytest.raises(Failure) as error:
            Loaded(f.encode(program))
        assert error.value.code == 1


def test_torn_and_foreign_files() -> None:
    data = f.encode(small())
    cuts = [*range(0, 64, 7), *range(64, len(data), 97)]
    for cut in cuts:
        with pytest.raises(Failure) as error:
            Loaded(data[:cut])
        assert error.value.code == 1
    for at in itertools.chain(range(64), range(64, len(data), 53)):
        other = bytearray(data)
        other[at] ^= 64
        with pytest.raises(Failure) as error:
            Loaded(bytes(other))
        assert error.value.code == 1
    with pytest.raises(Failure):
        Loaded(data + b' ')


def test_a_file_that_is_not_there() -> None:
    error = ctypes.create_string_buffer(ERROR_SIZE)
    handle = ctypes.c_void_p()
    result = library().fgc_load_file(
        b'/nowhere/model.fgc', None, handle, error, ERROR_SIZE
    )
    assert result == 2 and b'cannot be read' in error.value
    assert not handle.value


def test_bad_arguments() -> None:
    code, loaded = library(), Loaded(gated())
    x = images(1)
    error = ctypes.create_string_buffer(ERROR_SIZE)
    assert code.fgc_run(None, x.ctypes.data, 1, None, None, error, 99) == 4
    assert code.fgc_run(loaded.handle, None, 1, None, None, error, 99) == 4
    assert code.fgc_run(loaded.handle, x.ctypes.data, -1, None, None, None, 0)
    assert code.fgc_alone(loaded.handle, b'1', 1, error, 99) == 4
    assert code.fgc_load(None, 0, None, None, error, 99) == 4
    shape = (ctypes.c_int64 * 3)()
    assert code.fgc_shape(loaded.handle, 99, shape) == 4
    with pytest.raises(Failure, match='threads'):
        loaded.run(x, threads=-1)
    code.fgc_free(None)
