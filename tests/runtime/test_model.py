"""Files run through the C interface."""

import copy
import ctypes
import gc
import mmap
import pickle
import struct
import threading
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from fgc_mm.errors import FGCError
from fgc_mm.runtime import Model, RuntimeFileError
from fgc_mm.runtime.calls import call_shapes
from fgc_mm.runtime.format import (
    ALL,
    NONE,
    SLACK,
    Act,
    Activation,
    Base,
    Binary,
    Call,
    Conv,
    List,
    Math,
    Program,
    Unary,
    Value,
    encode,
)
from fgc_mm.runtime.library import builds

pytestmark = pytest.mark.usefixtures('compiled')
H, W, C = 3, 4, 5


def planes(channels, number, height=H, width=W):
    """Value number `number` of a simple arena."""
    return Value(
        channels, height, width, Base.ARENA, 256 * number, height * width,
        width,
    )  # fmt: skip


def conv(x, y, weight, channels, **options):
    """A 1 x 1 conv."""
    fields = dict(
        x=x, y=y, add=NONE, in_set=ALL, out_set=ALL, groups=1, kernel=(1, 1),
        stride=(1, 1), padding=(0, 0), dilation=(1, 1), weight=weight,
        out_step=channels, in_step=1, bias=NONE,
    )  # fmt: skip
    return Conv(**{**fields, **options})


def program():
    """A conv; the channels whose mask is above 0 are doubled by the next.

    Outputs: (2, H, W), and as decisions the logits and the mask, (C, 1, 1).
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(3 * C + 2 * C + C).astype('f4')
    image = Value(3, H, W, Base.IMAGE, 0, H * W, W)
    logits = Value(C, 1, 1, Base.WEIGHTS, 5 * C, 1, 1)
    return Program(
        arena=256 * 6 + SLACK,
        values=[
            image, planes(C, 0), logits, planes(C, 2, 1, 1), planes(2, 3),
            planes(C, 4, 1, 1),
        ],
        sets=[C],
        ops=[
            Unary(2, 3, ALL, Activation(Act.GREATER)),
            List(3, 0),
            conv(0, 1, 0, 3, out_set=0),
            conv(1, 4, 3 * C, C, in_set=0),
            Unary(2, 5, ALL, records_only=True),
        ],
        outputs=[4, 5, 3],
        weights=weights,
        names=['gate', 'list', 'conv1', 'conv2', 'logits'],
        records=1,
        meta=dict(config='ours'),
    )  # fmt: skip


def expected(images):
    made = program()
    first, second = np.split(made.weights, [3 * C])
    second, logits = np.split(second, [2 * C])
    mask = (logits > 0).astype('f4')
    maps = np.einsum('oi,nihw->nohw', first.reshape(C, 3), images)
    maps *= mask[:, None, None]
    result = np.einsum('oi,nihw->nohw', second.reshape(2, C), maps)
    shape = len(images), C, 1, 1
    ones = np.ones((len(images), 1), 'f4')
    return [
        result, (ones * logits).reshape(shape), (ones * mask).reshape(shape),
    ]  # fmt: skip


def some_images(count):
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 3, H, W)).astype('f4')


@pytest.fixture
def model():
    with Model.from_bytes(encode(program())) as made:
        yield made


@pytest.mark.parametrize('count', [0, 1, 5])
@pytest.mark.parametrize('threads', [1, 2])
def test_runs_images(model, count, threads):
    images = some_images(count)
    outputs = model.run(images, decisions=True, threads=threads)
    assert len(outputs) == 3
    for found, wanted in zip(outputs, expected(images)):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    (alone,) = model.run(images, threads=threads)
    np.testing.assert_array_equal(alone, outputs[0])


def test_a_flag_of_numpy(model):
    images = some_images(2)
    for flag in (np.bool_(True), np.bool_(False)):
        outputs = model.run(images, decisions=flag, threads=np.int64(1))
        assert len(outputs) == (3 if flag else 1)
        model.profile(images[0], decisions=flag)


def test_attributes(model):
    assert model.image_shape == (3, H, W)
    assert model.output_shapes == [(2, H, W), (C, 1, 1), (C, 1, 1)]
    assert model.records == 1
    assert model.meta['config'] == 'ours'
    assert model.build in builds()


@pytest.mark.parametrize('name', ['baseline', None])
def test_a_file_and_a_build(tmp_path, name):
    file = tmp_path / 'möde l.fgc'
    file.write_bytes(encode(program()))
    with Model.load(file, build=name) as model:
        assert name in (model.build, None)
        found = model.run(some_images(2))[0]
    np.testing.assert_allclose(found, expected(some_images(2))[0], atol=1e-6)


def test_a_build_that_is_none():
    with pytest.raises(FGCError, match='mmx'):
        Model.from_bytes(encode(program()), build='mmx')


def test_views_of_any_kind(model):
    images = some_images(4)
    (wanted,) = model.run(images)
    strided = np.asfortranarray(images.astype('f8'))
    np.testing.assert_array_equal(model.run(strided)[0], wanted)
    np.testing.assert_array_equal(model.run(images[::2])[0], wanted[::2])


@pytest.mark.parametrize(
    'images',
    [
        np.zeros((3, H, W), 'f4'),
        np.zeros((1, 3, W, H), 'f4'),
        np.zeros((1, 3, H, W), np.uint8),
        [],
    ],
)
def test_other_images_are_one_sentence(model, images):
    with pytest.raises(FGCError, match=r'the network needs \(N, 3, 3, 4\)'):
        model.run(images)


def test_broken_files(tmp_path):
    whole = encode(program())
    for data in (b'', whole[:100], b'x' + whole[1:], whole[:-1]):
        with pytest.raises(RuntimeFileError) as caught:
            Model.from_bytes(data)
        assert '\n' not in str(caught.value)
    file = tmp_path / 'torn.fgc'
    file.write_bytes(whole[:100])
    with pytest.raises(RuntimeFileError, match=r'torn\.fgc'):
        Model.load(file)
    for functions in ([], [print]):
        with pytest.raises(RuntimeFileError, match=r'none\.fgc'):
            Model.load(tmp_path / 'none.fgc', functions=functions)
        with pytest.raises(RuntimeFileError):
            Model.load(tmp_path, functions=functions)


def test_json_that_is_none():
    data = encode(program()).replace(b'{"config"', b'{ config"')
    with pytest.raises(RuntimeFileError):  # the checksum
        Model.from_bytes(data)
    with pytest.raises(RuntimeFileError, match='JSON cannot be read'):
        Model.from_bytes(with_checksum(data))


def with_checksum(data):
    check = struct.pack('<Q', zlib.crc32(data[64:]))
    return data[:40] + check + data[48:]


def test_profile(model):
    found = model.profile(some_images(1)[0], repeats=2, decisions=True)
    assert [name for name, _ in found] == program().names
    assert all(0 <= seconds < 1 for _, seconds in found)


def test_set_alone(model):
    model.set_single_threaded([True] * 5)
    with pytest.raises(FGCError):
        model.set_single_threaded([True] * 4)


def test_threads_share_a_model(model):
    images = some_images(8)
    (wanted,) = model.run(images)
    wrong = []

    def run(number):
        for _ in range(50):
            (found,) = model.run(images[number : number + 1])
            if not np.array_equal(found, wanted[number : number + 1]):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closed(model):
    model.close()
    model.close()
    with pytest.raises(FGCError, match='is closed'):
        model.run(some_images(1))


@pytest.mark.parametrize('by', [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(by, model):
    """Two objects would free the same memory."""
    with pytest.raises(FGCError, match='cannot be copied or pickled'):
        by(model)
    assert len(model.run(some_images(1))) == 1


def test_only_the_pointers_of_written_outputs_are_read(model):
    """They are the last in a page, before one that cannot be read."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mprotect(ctypes.c_void_p(start + page), page, 0)
    images, got = some_images(1), np.empty((1, 2, H, W), 'f4')
    pointer = ctypes.c_void_p
    last = pointer.from_address(start + page - ctypes.sizeof(pointer))
    last.value = got.ctypes.data
    error = ctypes.create_string_buffer(99)
    result = model._code.fgc_run(
        model._handle,
        images.ctypes.data,
        1,
        ctypes.pointer(last),
        None,
        error,
        99,
    )
    assert not result, error.value
    np.testing.assert_allclose(got, expected(images)[0], rtol=1e-5)


def test_unusual_arguments_are_one_sentence(tmp_path, model):
    images = some_images(2)
    with pytest.raises(FGCError, match=r'2 images are given, .* one image'):
        model.profile(images)
    for threads in (5000, 2**64 + 1, -1, -(2**64), -(2**65) + 1):
        with pytest.raises(FGCError, match=r'^-?\d+ threads .* 0 to 1024'):
            model.run(images, threads=threads)
    with pytest.raises(FGCError, match='dtype float64'):
        model.run(np.zeros((1, 3, H, W + 1)))
    with pytest.raises(RuntimeFileError, match='contains a zero byte'):
        Model.load(f'{tmp_path}/a\0b')
    path = tmp_path.joinpath(*['x' * 200] * 7)
    for functions in ([], [print]):
        with pytest.raises(RuntimeFileError) as caught:
            Model.load(path, functions=functions)
        assert str(caught.value).count(str(path)) == 1


def test_ops_without_names_are_numbered():
    bare = program()
    bare.names = []
    with Model.from_bytes(encode(bare)) as model:
        names = [name for name, _ in model.profile(some_images(1)[0])]
    assert names == [f'op {number}' for number in range(5)]


def test_deep_json_is_one_sentence():
    whole, deep = encode(program()), b'[' * 100_000
    body = whole[64 : whole.rindex(b'{"config')] + deep
    header = whole[:32] + struct.pack('<Q', len(deep)) + whole[40:64]
    with pytest.raises(RuntimeFileError, match='JSON cannot be read'):
        Model.from_bytes(with_checksum(header + body))


def calling():
    """A program of one function: y = f(x1, x2)."""
    image = Value(3, H, W, Base.IMAGE, 0, H * W, W)
    return Program(
        arena=1024 + SLACK,
        values=[image, planes(3, 0), planes(2, 1, 1, 2)],
        ops=[
            Binary(0, 0, 1, ALL, Math.ADD),
            Call(0, [0, 1], [2]),
        ],
        outputs=[2],
        names=['add', 'call'],
        records=1,
    )


def test_a_function_for_two_shapes_is_refused():
    """It would be given memory of the wrong size."""
    program = calling()
    program.ops.append(Call(0, [0], [1]))
    program.names.append('again')
    with pytest.raises(FGCError, match=r'function 0 .* for different shapes'):
        Model.from_bytes(encode(program), functions=[print])


@pytest.mark.parametrize('number', [-1, -(2**63), 2**63 - 1])
def test_a_number_that_no_function_has(number):
    """A negative one would be counted from the end of the list."""
    program = calling()
    program.ops[1] = Call(number, [0, 1], [2])
    with pytest.raises(RuntimeFileError, match=rf'function is {number}, must'):
        Model.from_bytes(encode(program), functions=[print])


def test_a_missing_function_is_one_sentence():
    program = calling()
    program.ops[1] = Call(1, [0, 1], [2])
    data = encode(program)
    with pytest.raises(FGCError, match=r'calls 2 functions, and 1 are given'):
        Model.from_bytes(data, functions=[print])
    with Model.from_bytes(data) as model, pytest.raises(FGCError) as caught:
        model.run(some_images(1))
    assert 'functions=[...]' in str(caught.value)


def test_functions_of_the_caller():
    seen = []

    def function(xs, ys):
        assert not xs[0].flags.writeable
        seen.append([x.copy() for x in xs])
        ys[0][:] = np.arange(4).reshape(2, 1, 2) + xs[1].sum()

    data = encode(calling())
    assert call_shapes(data) == {0: ([(3, H, W)] * 2, [(2, 1, 2)])}
    images = some_images(2)
    with Model.from_bytes(data, functions=[function]) as model:
        (found,) = model.run(images)
    for image, xs, y in zip(images, seen, found, strict=True):
        np.testing.assert_array_equal(xs[0], image)
        np.testing.assert_allclose(xs[1], 2 * image)
        wanted = np.arange(4).reshape(2, 1, 2) + 2 * image.sum()
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_an_error_in_a_function_is_raised(tmp_path):
    def function(*_):
        raise KeyError('mine')

    file = tmp_path / 'call.fgc'
    file.write_bytes(encode(calling()))
    with Model.load(file, functions=[function]) as model:
        for threads in (1, 2):
            with pytest.raises(KeyError, match='mine'):
                model.run(some_images(3), threads=threads)
    with Model.load(file) as model, pytest.raises(FGCError):
        model.run(some_images(1))


def test_closing_waits_for_the_runs():
    """The memory is freed when the last run has ended."""
    entered, leave = threading.Event(), threading.Event()

    def function(_, ys):
        entered.set()
        leave.wait(10)
        ys[0][:] = 7

    model = Model.from_bytes(encode(calling()), functions=[function])
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(model.run(some_images(1)))
    )
    thread.start()
    entered.wait(10)
    model.close()
    assert model._handle
    leave.set()
    thread.join()
    assert not model._handle
    assert (found[0] == 7).all()


def test_freed_with_the_object():
    model = Model.from_bytes(encode(program()))
    freed, handle, free = [], model._handle, model._code.fgc_free
    model._code = SimpleNamespace(fgc_free=freed.append)
    del model
    gc.collect()
    assert freed == [handle]
    free(handle)
