"""Every op of the C++ runtime against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from fgc_mm.errors import FGCError
from fgc_mm.runtime import Model
from fgc_mm.runtime import format as f
from fgc_mm.runtime.library import builds
from tests.runtime.programs import Array, Loaded, Maker, check

SEEDS = range(20)
ACTS = [
    f.Activation(),
    f.Activation(f.Act.RELU),
    f.Activation(f.Act.CLAMP, -0.5, 0.75),
    f.Activation(f.Act.LEAKY_RELU, 0.1),
    f.Activation(f.Act.HARDSWISH),
    f.Activation(f.Act.HARDSIGMOID),
    f.Activation(f.Act.SILU, 1.0),
    f.Activation(f.Act.SILU, 1.702),
    f.Activation(f.Act.GELU),
    f.Activation(f.Act.GELU_TANH),
    f.Activation(f.Act.SIGMOID),
    f.Activation(f.Act.TANH),
    f.Activation(f.Act.ELU, 0.7),
    f.Activation(f.Act.MISH),
    f.Activation(f.Act.LINEAR, 2.5, -1.0),
    f.Activation(f.Act.GREATER, 0.25),
    f.Activation(f.Act.ABS),
    f.Activation(f.Act.SQUARE),
    f.Activation(f.Act.EXP),
]


class Random(Maker):
    """Makes random layouts, sets and activations, too."""

    def pick(self, *choices: int) -> int:
        return int(self.random.choice(choices))

    def between(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def somewhere(self, shape: tuple[int, int, int]) -> int:
        """A value with a random layout."""
        kind = self.between(0, 3)
        if kind == 0:
            return self.value(shape)
        if kind == 1:
            return self.value(shape, pad=self.between(1, 3))
        if kind == 2:
            return self.value(
                shape,
                pad=self.pick(0, 0, 2),
                gap=self.between(0, 9),
                beside=self.between(0, 9),
            )
        return self.value(shape, interleaved=True, gap=self.between(0, 3))

    def listed(self, channels: int) -> list[int]:
        """No channel, one, all, or some."""
        some = self.random.permutation(channels)
        some = sorted(some[: self.pick(0, 1, channels, channels // 2)])
        return [int(k) for k in some]

    def maybe_set(self, channels: int) -> tuple[int, list[int]]:
        if self.pick(0, 1):
            return f.ALL, list(range(channels))
        listed = self.listed(channels)
        return self.set(channels, listed), listed

    def act(self) -> f.Activation:
        return ACTS[self.between(0, len(ACTS) - 1)]

    def filled(
        self, shape: tuple[int, int, int], listed: list[int] | None = None
    ) -> int:
        """A value of normal numbers; channels not listed stay nan."""
        value = self.somewhere(shape)
        if listed is None:
            self.fill(value, self.normal(*shape))
            return value
        number = self.set(shape[0], listed)
        constant = self.constant(self.normal(*shape))
        self.op(f.Unary(constant, value, number))
        return value


def threads_of(seed: int) -> int:
    return 1 + seed % 4


@pytest.mark.parametrize('seed', SEEDS)
def test_conv(seed: int) -> None:
    m = Random(seed=seed)
    kernel = (m.between(1, 5), m.between(1, 5))
    stride = (m.between(1, 3), m.between(1, 3))
    padding = (m.between(0, 3), m.between(0, 3))
    dilation = (m.pick(1, 1, 2), m.pick(1, 1, 2))
    out = (m.between(1, 11), m.between(1, 21))
    size = [
        max(1, (o - 1) * s + d * (k - 1) + 1 - p - m.between(0, 2))
        for o, s, d, k, p in zip(
            out, stride, dilation, kernel, padding, strict=True
        )
    ]
    ins, outs = m.between(1, 9), m.between(1, 13)
    in_set, read = m.maybe_set(ins)
    out_set, _ = m.maybe_set(outs)
    x = m.filled((ins, *size), None if in_set == f.ALL else read)
    y = m.somewhere((outs, *out))
    add = f.NONE
    if m.pick(0, 1):
        add = (m.pick(0, 1) and m.filled((outs, *out))) or y
        if add == y:
            m.fill(y, m.normal(outs, *out))
    weight = m.weight(m.normal(outs, ins, *kernel))
    taps = kernel[0] * kernel[1]
    by_input = m.pick(0, 1)
    m.op(
        f.Conv(
            x, y, add, in_set, out_set, 1, kernel, stride, padding, dilation,
            weight,
            taps if by_input else ins * taps,
            outs * taps if by_input else taps,
            (m.pick(0, 1) and m.weight(m.normal(outs))) or f.NONE,
            m.act(),
        )
    )  # fmt: skip
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize('seed', SEEDS)
def test_large_conv(seed: int) -> None:
    """Blocks of outputs, inputs and rows; padded maps; Winograd."""
    m = Random(seed=seed)
    size = m.pick(7, 14, 17, 28)
    k = m.pick(1, 3, 3)
    p = m.pick(0, 1, 1, 2) if k == 3 else 0
    to = size + 2 * p - k + 1
    ins, outs = m.between(20, 40), m.between(5, 40)
    in_set, _ = m.maybe_set(ins)
    out_set, _ = m.maybe_set(outs)
    x = m.value((ins, size, size), pad=m.pick(0, 1, 2))
    m.op(f.Unary(m.constant(m.normal(ins, size, size)), x, in_set))
    y = m.somewhere((outs, to, to))
    m.fill(y, m.normal(outs, to, to))
    m.op(
        f.Conv(
            x, y, m.pick(y, f.NONE), in_set, out_set, 1, (k, k), (1, 1),
            (p, p), (1, 1), m.weight(m.normal(outs, ins, k, k)),
            ins * k * k, k * k, m.weight(m.normal(outs)), m.act(),
        )
    )  # fmt: skip
    program = m.finished(y)
    expect_conv(program, threads_of(seed))


@pytest.mark.parametrize('threads', [2, 7])
@pytest.mark.parametrize('size', [(4, 4), (8, 8), (13, 30), (57, 61), (90, 8)])
@pytest.mark.parametrize(
    'channels', [(64, 20), (40, 70), (50, 323), (300, 90)]
)
@pytest.mark.parametrize('listed', ['inputs', 'outputs'])
def test_winograd_on_threads(
    threads: int, size: tuple[int, int], channels: tuple[int, int], listed: str
) -> None:
    """Divided by rows, by outputs, and shared by the threads."""
    m = Random(seed=threads)
    ins, outs = channels
    if listed == 'inputs':
        sets = [m.set(ins, range(0, ins, 2)), f.ALL]
    else:
        sets = [f.ALL, m.set(outs, range(1, outs))]
    x = m.value((ins, *size), pad=1)
    y = m.value((outs, *size), pad=int(listed == 'inputs'))
    m.fill(x, m.normal(ins, *size))
    m.fill(y, m.normal(outs, *size))
    m.op(
        f.Conv(
            x, y, y, *sets, 1, (3, 3), (1, 1), (1, 1), (1, 1),
            m.weight(m.normal(outs, ins, 3, 3)), ins * 9, 9,
            m.weight(m.normal(outs)), f.Activation(f.Act.HARDSWISH),
        )
    )  # fmt: skip
    program = m.finished(y)
    expect_conv(program, threads)
    loaded = Loaded(f.encode(program))
    image = m.normal(1, *program.values[0].shape)
    alone = loaded.run(image)[0].view(np.int32)  # -0 is not 0
    for _ in range(3):
        found = loaded.run(image, threads)[0].view(np.int32)
        np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize('k', [3, 5])
@pytest.mark.parametrize('listed', [False, True])
def test_conv_of_a_large_map(k: int, listed: bool) -> None:
    """More rows than are computed at once."""
    m = Random(seed=k)
    ins, outs, h, w = 64, 48, 41, 60
    x, y = m.value((ins, h, w), pad=k // 2), m.value((outs, h, w), pad=1)
    sets = [m.set(n, range(1, n, 3)) if listed else f.ALL for n in (ins, outs)]
    m.op(f.Unary(m.constant(m.normal(ins, h, w)), x, sets[0]))
    m.op(
        f.Conv(
            x, y, f.NONE, *sets, 1, (k, k), (1, 1), (k // 2, k // 2), (1, 1),
            m.weight(m.normal(outs, ins, k, k)), ins * k * k, k * k,
            m.weight(m.normal(outs)), f.Activation(f.Act.RELU),
        )
    )  # fmt: skip
    expect_conv(m.finished(y), 2)


def expect_conv(
    program: f.Program, threads: int, build: str | None = None
) -> None:
    """As numpy's, which computes it by whole arrays here."""
    from tests.runtime import naive

    saved = naive.COMPUTE[f.Conv]
    naive.COMPUTE[f.Conv] = quick_conv
    try:
        check(program, threads=threads, build=build)
    finally:
        naive.COMPUTE[f.Conv] = saved


def quick_conv(s, op: f.Conv) -> None:
    """A dense conv with stride 1, tap by tap."""
    from tests.runtime import naive

    x, y = s.values[op.x], s.values[op.y].copy()
    read = s.channels(op.in_set, len(x))
    wide = np.pad(x[read], ((0, 0), *((p, p) for p in op.padding)))
    taps = op.kernel[0] * op.kernel[1]
    h, w = y.shape[1:]
    for o in s.channels(op.out_set, len(y)):
        at = op.weight + o * op.out_step + np.array(read, int) * op.in_step
        total = np.full((h, w), s.weights[op.bias + o])
        for t in range(taps):
            r, c = divmod(t, op.kernel[1])
            part = wide[:, r : r + h, c : c + w]
            total += np.tensordot(s.weights[at + t], part, 1)
        if op.add != f.NONE:
            total += s.values[op.add][o]
        y[o] = naive.activate(total, op.act)
    s.values[op.y] = y


@pytest.mark.parametrize('act', ACTS[:7])
@pytest.mark.parametrize('added', [False, True])
def test_padded_conv_of_kernel_1(act: f.Activation, added: bool) -> None:
    """The output is wider than the rows of its input with their padding."""
    m = Maker()
    x, y = m.value((16, 9, 9), pad=1), m.value((16, 11, 11))
    m.fill(x, m.normal(16, 9, 9))
    add = f.NONE
    if added:
        add = m.value((16, 11, 11))
        m.fill(add, m.normal(16, 11, 11))
    m.op(
        f.Conv(
            x, y, add, f.ALL, f.ALL, 1, (1, 1), (1, 1), (1, 1), (1, 1),
            m.weight(m.normal(16, 16)), 16, 1, m.weight(m.normal(16)), act,
        )
    )  # fmt: skip
    check(m.finished(y))


@pytest.mark.parametrize('seed', SEEDS)
def test_conv_whose_padding_exceeds_its_reach(seed: int) -> None:
    """All windows at the borders may be outside of the map."""
    m = Random(seed=seed)
    kernel = m.pick(1, 1, 2, 3), m.pick(1, 1, 2, 3)
    dilation = (m.pick(1, 1, 2), m.pick(1, 1, 2))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(r + m.between(0, 2) for r in reach)
    padding = padding[0], padding[1] + m.pick(0, 1)
    size = m.between(1, 7), m.between(1, 13)
    out = [n + 2 * p - r for n, p, r in zip(size, padding, reach, strict=True)]
    groups = m.pick(1, 1, 2, 16)
    ins, outs = 16, m.pick(16, 32)
    x = m.value((ins, *size), pad=max(padding) + m.pick(0, 0, 1))
    m.fill(x, m.normal(ins, *size))
    y = m.somewhere((outs, *out))
    add = m.filled((outs, *out)) if m.pick(0, 1) else f.NONE
    taps = kernel[0] * kernel[1]
    m.op(
        f.Conv(
            x, y, add, f.ALL, f.ALL, groups, kernel, (1, 1), padding,
            dilation, m.weight(m.normal(outs, ins // groups, taps)),
            ins // groups * taps, taps, m.weight(m.normal(outs)), m.act(),
        )
    )  # fmt: skip
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize('build', [None, 'baseline'])
def test_a_conv_far_beside_its_map(build: str | None) -> None:
    """Rows of its output are longer than those of its input and memory."""
    m = Maker()
    x, y = m.value((4, 2, 191), pad=63), m.value((96, 2, 317))
    m.fill(x, m.normal(4, 2, 191))
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, f.ALL, 1, (1, 1), (1, 1), (0, 63), (1, 1),
            m.weight(m.normal(96, 4)), 4, 1, m.weight(m.normal(96)),
            f.Activation(),
        )
    )  # fmt: skip
    expect_conv(m.finished(y), 1, build)


@pytest.mark.parametrize('groups', [1, 3])
@pytest.mark.parametrize(
    'stride, dilation', [(4, 2), (6, 4), (5, 2), (4, 6), (9, 1)]
)
def test_phases_of_a_stride(stride: int, dilation: int, groups: int) -> None:
    """Kernel elements share the pixels of as many phases as there are."""
    m = Maker(seed=stride)
    out, kernel = (3, 4), (4, 3)
    steps, spread = (stride, stride + 1), (dilation, 1)
    size = [
        (o - 1) * s + d * (k - 1) + 1
        for o, s, d, k in zip(out, steps, spread, kernel, strict=True)
    ]
    x, y = m.value((3, *size)), m.value((6, *out))
    m.fill(x, m.normal(3, *size))
    inputs = 3 // groups
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, f.ALL, groups, kernel, steps, (1, 0),
            spread, m.weight(m.normal(6, inputs, 12)), inputs * 12, 12,
            m.weight(m.normal(6)), f.Activation(),
        )
    )  # fmt: skip
    check(m.finished(y))


@pytest.mark.parametrize('seed', SEEDS)
def test_depthwise_and_grouped_conv(seed: int) -> None:
    m = Random(seed=seed)
    groups, each = m.between(2, 6), m.between(1, 3)
    depthwise = bool(m.pick(0, 1))
    ins = groups if depthwise else groups * m.between(2, 3)
    outs = groups * each
    out_set = m.maybe_set(outs)[0] if depthwise else f.ALL
    kernel, stride = m.pick(1, 3, 5), m.pick(1, 1, 2)
    out = (m.between(1, 9), m.between(1, 19))
    size = [(o - 1) * stride + 1 for o in out]
    x = m.filled((ins, *size))
    y = m.somewhere((outs, *out))
    taps = kernel * kernel
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, out_set, groups, (kernel, kernel),
            (stride, stride), (kernel // 2, kernel // 2), (1, 1),
            m.weight(m.normal(outs, ins // groups, taps)),
            ins // groups * taps, taps,
            (m.pick(0, 1) and m.weight(m.normal(outs))) or f.NONE,
            m.act(),
        )
    )  # fmt: skip
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize(
    'large, seed',
    [
        *((False, seed) for seed in SEEDS),
        *((True, seed) for seed in SEEDS[:4]),
    ],
)
def test_depthwise_conv_between_padded_maps(large: bool, seed: int) -> None:
    """Its input and output maps are stored with zero padding."""
    m = Random(seed=seed)
    channels = 2 if large else m.between(2, 5)
    h, w = (97, 93) if large else (m.between(1, 19), m.between(1, 19))
    k = m.pick(3, 3, 5)
    first, y, z = (m.value((channels, h, w), pad=2) for _ in range(3))
    x = m.filled((channels, h, w))
    each = (1, 1), (0, 0), (1, 1), m.weight(m.normal(channels, channels))
    m.op(
        f.Conv(
            x, first, f.NONE, f.ALL, f.ALL, 1, (1, 1), *each, channels, 1,
            f.NONE, f.Activation(f.Act.RELU),
        )
    )  # fmt: skip
    add = f.NONE
    if m.pick(0, 1):
        add = (m.pick(0, 1) and m.filled((channels, h, w))) or y
        if add == y:
            m.fill(y, m.normal(channels, h, w))
    last = f.Activation()
    for begin, end, added, act in (
        (first, y, add, m.act()),
        (y, z, f.NONE, last),
    ):
        m.op(
            f.Conv(
                begin, end, added, f.ALL, f.ALL, channels, (k, k), (1, 1),
                (k // 2, k // 2), (1, 1), m.weight(m.normal(channels, k * k)),
                k * k, k * k, m.weight(m.normal(channels)), act,
            )
        )  # fmt: skip
    check(m.finished(z), threads=threads_of(seed))


@pytest.mark.parametrize('far', [0, 300, 4000])
@pytest.mark.parametrize('seed', SEEDS)
def test_depthwise_conv_of_stride_2(seed: int, far: int) -> None:
    """Windows may be beside the map, and, in a damaged file, far beside it."""
    m = Random(seed=seed)
    kernel = m.between(1, 9), m.between(1, 9)
    padding = m.between(0, 5), m.between(0, 9)
    out = m.between(1, 11), m.between(1, 40)
    size = [
        max(1, 2 * (o - 1) + k - p - m.between(-1, 3))
        for o, k, p in zip(out, kernel, padding, strict=True)
    ]
    if far and m.pick(0, 1):
        padding = padding[0], padding[1] + far
    elif far:
        out = out[0], out[1] + 150
    channels, each = m.between(1, 3) + 1, m.between(1, 2)
    x = m.filled((channels, *size))
    y = m.somewhere((channels * each, *out))
    taps = kernel[0] * kernel[1]
    m.op(
        f.Conv(
            x, y, f.NONE, f.ALL, m.maybe_set(channels * each)[0], channels,
            kernel, (2, 2), padding, (1, 1),
            m.weight(m.normal(channels * each, taps)), taps, taps,
            m.weight(m.normal(channels * each)), m.act(),
        )
    )  # fmt: skip
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize('beside', [0, 1, 3])
def test_padding_of_a_depthwise_conv_with_gaps(beside: int) -> None:
    """The right padding of a row need not be the left one of the next."""
    m = Maker((2, 6, 6), seed=1)
    y, z = m.value((2, 6, 6), pad=1, beside=beside), m.value((2, 6, 6))
    for x, to, groups, taps in ((0, y, 2, 1), (y, z, 1, 9)):
        side = 1 if taps == 1 else 3
        step = 18 if groups == 1 else 1
        m.op(
            f.Conv(
                x, to, f.NONE, f.ALL, f.ALL, groups, (side, side), (1, 1),
                (side // 2, side // 2), (1, 1), m.weight(m.normal(2, step)),
                step, taps, f.NONE, f.Activation(),
            )
        )  # fmt: skip
    check(m.finished(z))


def test_repeated_weights_that_no_memory_holds() -> None:
    """Steps of 0 repeat few weights for any number of channels."""
    ins, outs = 14942664, 18837001
    program = f.Program(
        arena=max(ins, outs) + 256,
        values=[
            f.Value(1, 1, 1, f.Base.IMAGE, 0, 1, 1, 0),
            f.Value(ins, 1, 1, f.Base.ARENA, 0, 1, 1, 0),
            f.Value(outs, 1, 1, f.Base.ARENA, 0, 1, 1, 0),
        ],
        weights=np.ones(1 << 14, np.float32),
        ops=[
            f.Conv(
                1, 2, f.NONE, f.ALL, f.ALL, 1, (128, 128), (1, 1), (64, 64),
                (1, 1), 0, 0, 0, f.NONE, f.Activation(),
            )
        ],
        names=['conv'],
    )  # fmt: skip
    with pytest.raises(FGCError, match='larger than any memory'):
        Model.from_bytes(f.encode(program))


@pytest.mark.parametrize('seed', SEEDS)
def test_conv_on_one_pixel(seed: int) -> None:
    m = Random(seed=seed)
    ins, outs = m.between(1, 150), m.between(1, 150)
    in_set, read = m.maybe_set(ins)
    out_set, _ = m.maybe_set(outs)
    x = m.filled((ins, 1, 1), None if in_set == f.ALL else read)
    y = m.somewhere((outs, 1, 1))
    m.fill(y, m.normal(outs, 1, 1))
    step = m.pick(1, 1, 2)
    out_step, in_step = (m.pick(0, 1) and (step, outs * step)) or (
        ins * step,
        step,
    )
    m.op(
        f.Conv(
            x, y, m.pick(y, f.NONE), in_set, out_set, 1, (1, 1), (1, 1),
            (0, 0), (1, 1), m.weight(m.normal(outs * ins * step)), out_step,
            in_step, (m.pick(0, 1) and m.weight(m.normal(outs))) or f.NONE,
            m.act(),
        )
    )  # fmt: skip
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize('act', [f.Act(k) for k in f.Act])
def test_activation(act: f.Act) -> None:
    m = Maker()
    x = np.concatenate(
        [
            np.linspace(-12, 12, 2001),
            [-100, -50, -20, 20, 50, 80, 0.0, 1e-6, -1e-6],
        ]
    ).astype(np.float32)
    if act in (f.Act.SQRT, f.Act.LOG):
        x = np.abs(x)
    x = x.reshape(1, 10, -1)
    y = m.value(x.shape)
    a = {f.Act.CLAMP: -2.0, f.Act.SILU: 1.5}.get(act, 0.3)
    m.op(f.Unary(m.constant(x), y, f.ALL, f.Activation(act, a, 4.0)))
    (found,) = check(m.finished(y), tolerance=1)
    expected = expected_act(act, a, x)
    exact = np.isfinite(expected) & (np.abs(expected) > 1e-30)
    # 1 + erf(x) is rounded to a number near 1 before it cancels
    slack = 3e-7 * np.abs(x) if act == f.Act.GELU else np.zeros_like(x)
    np.testing.assert_array_less(
        np.abs(found[0] - expected)[exact],
        (1.5e-6 * np.abs(expected) + slack)[exact] + 1e-37,
    )


def expected_act(act: f.Act, a: float, x: Array) -> Array:
    """As numpy computes it, but exact where that cancels."""
    from math import erfc, log1p

    from tests.runtime import naive

    x = x.astype(np.float64)
    if act == f.Act.GELU:
        return x * np.vectorize(erfc)(-x / np.sqrt(2)) / 2
    if act == f.Act.GELU_TANH:
        u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        # where its argument is large, float32 has rounded that already
        u = np.where(x < -4, np.nan, u)
        return x / (1 + np.exp(-2 * u))
    if act == f.Act.MISH:
        return x * np.tanh(np.vectorize(log1p)(np.exp(x)))
    if act in (f.Act.HARDSWISH, f.Act.HARDSIGMOID, f.Act.LINEAR):
        return np.full_like(x, np.nan)  # sums that cancel
    if act in (f.Act.SILU, f.Act.SIGMOID):
        x = np.where(np.abs(x) > 20, np.nan, x)  # a x has rounded
    return naive.activate(x, f.Activation(act, a, 4.0))


@pytest.mark.parametrize('act', [f.Act(k) for k in f.Act])
def test_nan_stays_nan(act: f.Act) -> None:
    m = Maker()
    x = np.full((1, 3, 9), np.nan)
    y = m.value(x.shape)
    m.op(f.Unary(m.constant(x), y, f.ALL, f.Activation(act, 0.5, 1.0)))
    program = m.finished(y)
    from tests.runtime.programs import Loaded

    (found,) = Loaded(f.encode(program)).run(np.zeros((1, 1, 1, 1)))
    if act == f.Act.GREATER:
        assert (found == 0).all()
    else:
        assert np.isnan(found).all()


@pytest.mark.parametrize('seed', SEEDS)
def test_unary_and_affine(seed: int) -> None:
    m = Random(seed=seed)
    shape = (m.between(1, 9), m.between(1, 7), m.between(1, 40))
    number, listed = m.maybe_set(shape[0])
    x = m.filled(shape, None if number == f.ALL else listed)
    y = x if m.pick(0, 1) else m.somewhere(shape)
    z = y if m.pick(0, 1) else m.somewhere(shape)
    m.op(f.Unary(x, y, number, m.act()))
    arrays = [
        (m.pick(0, 1) and m.weight(m.normal(shape[0]))) or f.NONE
        for _ in range(3)
    ]
    m.op(f.Affine(y, z, number, *arrays, m.act()))
    check(m.finished(z), threads=threads_of(seed))


@pytest.mark.parametrize('seed', SEEDS)
def test_binary(seed: int) -> None:
    m = Random(seed=seed)
    shape = (m.between(1, 9), m.between(1, 7), m.between(1, 40))
    number, listed = m.maybe_set(shape[0])

    def operand() -> int:
        part = tuple(n if m.pick(0, 1, 1) else 1 for n in shape)
        if part[0] == shape[0] and number != f.ALL:
            return m.filled(part, listed)
        return m.filled(part)

    a, b = operand(), operand()
    y = m.somewhere(shape)
    if m.program.values[a].shape == shape and m.pick(0, 1):
        y = a
    if m.program.values[b].shape == shape and m.pick(0, 1):
        y = b
    math = m.pick(*f.Math)
    m.op(f.Binary(a, b, y, number, math, m.act()))
    check(m.finished(y), threads=threads_of(seed), tolerance=1e-3)


@pytest.mark.parametrize('seed', SEEDS)
def test_pool_and_mean(seed: int) -> None:
    m = Random(seed=seed)
    channels = m.between(1, 9)
    number, listed = m.maybe_set(channels)
    size = (m.between(1, 12), m.between(1, 20))
    x = m.filled((channels, *size), None if number == f.ALL else listed)
    out = (m.between(1, 7), m.between(1, 11))
    y = m.somewhere((channels, *out))
    z = m.somewhere((channels, 1, 1))
    pair = (m.between(0, 2), m.between(0, 2))
    m.op(
        f.Pool(
            x, y, number, m.pick(0, 1), (m.between(1, 5), m.between(1, 5)),
            (m.between(1, 3), m.between(1, 3)), pair,
            (m.pick(1, 1, 2), m.pick(1, 1, 2)), m.pick(0, 1),
            f.Activation(f.Act.RELU),
        )
    )  # fmt: skip
    m.op(f.Mean(x, z, number, m.act()))
    check(m.finished(y, z), threads=threads_of(seed))


@pytest.mark.parametrize('build', builds())
@pytest.mark.parametrize('average', [0, 1])
@pytest.mark.parametrize('kernel', [2, 3, 5])
@pytest.mark.parametrize('dilation', [1, 2])
def test_wide_pool(
    build: str, average: int, kernel: int, dilation: int
) -> None:
    """Rows of several vectors; nan and -inf are kept."""
    m = Random(seed=kernel + dilation)
    x, y = m.value((3, 9, 75)), m.value((3, 5, 38), pad=1)
    numbers = m.normal(3, 9, 75) - 2  # most are below 0
    numbers[0, 3:5, 40:42] = np.nan
    numbers[1, :, 20:30] = -np.inf
    m.fill(x, numbers)
    m.op(
        f.Pool(
            x, y, f.ALL, average, (kernel, kernel), (2, 2), (1, 1),
            (dilation, dilation), 0, f.Activation(f.Act.NONE),
        )
    )  # fmt: skip
    (found,) = check(m.finished(y), build=build)
    assert np.isnan(found[0, 0]).any() and np.isneginf(found[0, 1]).any()


@pytest.mark.parametrize('seed', SEEDS)
def test_norm(seed: int) -> None:
    m = Random(seed=seed)
    groups, each = m.between(0, 4), m.between(1, 9)
    shape = (max(groups, 1) * each, m.between(1, 5), m.between(1, 80))
    x = m.filled(shape)
    y = x if m.pick(0, 1) else m.somewhere(shape)
    arrays = [
        (m.pick(0, 1) and m.weight(m.normal(shape[0]))) or f.NONE
        for _ in range(2)
    ]
    m.op(f.Norm(x, y, groups, 1e-3, *arrays, m.act()))
    check(m.finished(y), threads=threads_of(seed), tolerance=1e-4)


@pytest.mark.parametrize('seed', SEEDS)
def test_softmax(seed: int) -> None:
    m = Random(seed=seed)
    shape = m.between(1, 20), m.between(1, 5), m.between(1, 80)
    x, y = m.filled(shape), m.somewhere(shape)
    m.op(f.Softmax(x, y))
    check(m.finished(y), threads=threads_of(seed))


@pytest.mark.parametrize('seed', SEEDS)
def test_matmul(seed: int) -> None:
    m = Random(seed=seed)
    channels, inner = m.between(1, 4), m.between(1, 20)
    rows, columns = m.between(1, 9), m.between(1, 80)
    x = m.filled((channels, rows, inner))
    w = m.filled((channels, inner, columns))
    y = m.somewhere((channels, rows, columns))
    m.op(f.MatMul(x, w, y))
    check(m.finished(y), threads=threads_of(seed))


def box(m: Random, x: tuple, y: tuple) -> tuple:
    """A transposition, with steps, that stays inside of x and y."""
    order = [int(k) for k in m.random.permutation(3)]
    start, to, sizes, froms, tos = [0] * 3, [0] * 3, [], [], []
    for axis in range(3):
        other = order[axis]
        size = m.between(1, min(x[axis], y[other]))
        room_x = (x[axis] - 1) // max(size - 1, 1)
        room_y = (y[other] - 1) // max(size - 1, 1)
        step = [0] * 3
        step[axis] = m.between(0, room_x)
        start[axis] = m.between(0, x[axis] - 1 - (size - 1) * step[axis])
        if m.pick(0, 1):
            start[axis] += (size - 1) * step[axis]
            step[axis] = -step[axis]
        along = [0] * 3
        along[other] = m.between(1, room_y) if size > 1 else 0
        to[other] = m.between(0, y[other] - 1 - (size - 1) * along[other])
        sizes.append(size)
        froms.append(tuple(step))
        tos.append(tuple(along))
    return tuple(start), tuple(to), sizes, froms, tos


@pytest.mark.parametrize('seed', SEEDS)
def test_move(seed: int) -> None:
    m = Random(seed=seed)
    x = tuple(m.between(1, 12) for _ in range(3))
    y = tuple(m.between(1, 12) for _ in range(3))
    a, b = m.filled(x), m.somewhere(y)
    number, _ = m.maybe_set(y[0])
    m.op(f.Move(a, b, number, m.pick(0, 1), *box(m, x, y)))
    # what follows reads the zeros around
    z = m.value((1, y[1], y[2]))
    m.op(
        f.Conv(
            b, z, f.NONE, number, f.ALL, 1, (3, 3), (1, 1), (1, 1), (1, 1),
            m.weight(m.normal(y[0] * 9)), 9 * y[0], 9, f.NONE,
        )
    )  # fmt: skip
    check(m.finished(b, z), threads=threads_of(seed))


@pytest.mark.parametrize('windows', [(2, 3), (1, 1)])
def test_move_into_windows(windows: tuple[int, int]) -> None:
    """Five loops: (C, H, W) to (C, windows, pixels of each), and back."""
    m = Maker()
    rows, columns = windows
    h, w = 3, 4
    shape = (5, rows * h, columns * w)
    x = m.value(shape, pad=1)
    m.fill(x, m.normal(*shape))
    y = m.value((5, rows * columns, h * w))
    z = m.value(shape, pad=2)
    here = [(1, 0, 0), (0, h, 0), (0, 0, w), (0, 1, 0), (0, 0, 1)]
    there = [(1, 0, 0), (0, columns, 0), (0, 1, 0), (0, 0, w), (0, 0, 1)]
    sizes = [5, rows, columns, h, w]
    zero = (0, 0, 0)
    m.op(f.Move(x, y, f.ALL, 0, zero, zero, sizes, here, there))
    m.op(f.Move(y, z, f.ALL, 0, zero, zero, sizes, there, here))
    _, back = check(m.finished(y, z))
    expected = m.weights[0].reshape(shape)
    np.testing.assert_array_equal(back[0], expected)


@pytest.mark.parametrize('mode, corners', [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize('seed', range(8))
def test_resize(mode: int, corners: int, seed: int) -> None:
    m = Random(seed=seed)
    channels = m.between(1, 5)
    number, listed = m.maybe_set(channels)
    x = (channels, m.between(1, 9), m.between(1, 9))
    y = (channels, m.between(1, 20), m.between(1, 20))
    a = m.filled(x, None if number == f.ALL else listed)
    b = m.somewhere(y)
    scale = (0.0, 0.0) if m.pick(0, 1) else (0.5, 0.4)
    m.op(f.Resize(a, b, number, mode, corners, scale))
    check(m.finished(b), threads=threads_of(seed))


@pytest.mark.parametrize('seed', SEEDS)
def test_attention(seed: int) -> None:
    m = Random(seed=seed)
    heads, d, e = m.between(1, 4), m.between(1, 9), m.between(1, 9)
    rows, queries, keys = m.between(1, 3), m.between(1, 40), m.between(1, 40)
    q = m.filled((heads * d, rows, queries))
    k = m.filled((heads * d, rows, keys))
    v = m.filled((heads * e, rows, keys))
    y = m.somewhere((heads * e, rows, queries))
    bias = f.NONE
    if m.pick(0, 1):
        shape = (m.pick(1, heads), m.pick(1, rows), queries * keys)
        bias = (
            m.constant(m.normal(*shape)) if m.pick(0, 1) else m.filled(shape)
        )
    m.op(f.Attention(q, k, v, bias, y, heads, 0.7))
    check(m.finished(y), threads=threads_of(seed))


def test_attention_of_many_keys() -> None:
    """More scores than are computed at once."""
    m = Maker()
    q, k, v = (m.value((8, 1, 1100)) for _ in range(3))
    for value in (q, k, v):
        m.fill(value, m.normal(8, 1, 1100))
    y = m.value((8, 1, 1100))
    m.op(f.Attention(q, k, v, f.NONE, y, 2, 0.5))
    check(m.finished(y), threads=2)


@pytest.mark.parametrize('seed', SEEDS)
def test_join(seed: int) -> None:
    """Channels of two sources and of none, moved and repeated."""
    m = Random(seed=seed)
    a, b = m.between(1, 6), m.between(1, 6)
    repeat = m.between(1, 3)
    total = a + b * repeat + 2
    first = [int(n) for n in m.random.permutation(a)]
    if a > 1:
        first[0] = -1
    second = [a + repeat * k for k in range(b)]
    one, two = m.set(a, m.listed(a)), m.set(b, m.listed(b))
    m.program.sets.append(total)
    joined = len(m.program.sets) - 1
    segments = [
        (one, 1, first),
        (two, repeat, second),
        (f.ALL, 1, [total - 1]),
    ]
    m.op(f.Join(joined, segments))
    shape = (total, 3, 5)
    y = m.somewhere(shape)
    m.op(f.Unary(m.constant(m.normal(*shape)), y, joined))
    check(m.finished(y))


@pytest.mark.parametrize('k', [0, 1, 3, 8, 9])
@pytest.mark.parametrize('ones', [0, 1])
def test_top_k(k: int, ones: int) -> None:
    m = Maker()
    x = m.constant(
        np.array([-1, 2, 0, 2, -0.0, 5, -3, 2, 0.5]).reshape(9, 1, 1)
    )
    y = m.value((9, 1, 1), pad=1)
    m.op(f.TopK(x, y, k, ones))
    check(m.finished(y))


@pytest.mark.parametrize('seed', range(5))
def test_top_k_of_random_numbers(seed: int) -> None:
    m = Random(seed=seed)
    channels = m.between(1, 300)
    x = m.filled((channels, 1, 1))
    y = m.somewhere((channels, 1, 1))
    m.op(f.TopK(x, y, m.between(0, channels), 0))
    check(m.finished(y))


@pytest.mark.parametrize('pad, size', [(0, 1), (0, 5), (1, 1), (1, 5)])
def test_list_of_a_gate(pad: int, size: int) -> None:
    """nan and zeros of either sign are closed."""
    m = Maker()
    mask = np.array([0, 1, np.nan, -0.0, -2, 1e-30]).reshape(6, 1, 1)
    x = m.value((6, 1, 1), pad=pad)
    m.fill(x, mask)
    m.program.sets.append(6)
    m.op(f.List(x, 0))
    y = m.value((6, size, size))
    m.op(f.Unary(m.constant(m.normal(6, size, size)), y, 0))
    (found,) = check(m.finished(y))
    there = ~np.isnan(found[0]).any((1, 2))
    np.testing.assert_array_equal(there, [0, 1, 0, 0, 1, 1])
