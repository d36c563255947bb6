"""Computes a program in numpy, float64, number by number where it can.

Slow and simple on purpose: what the C++ runtime is compared with. Values are
arrays (C, H, W) of their own, whether or not they share memory in the
arena; what no op wrote, or is not listed, is nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fgc_mm.runtime import format as f

Array = np.ndarray
erf = np.vectorize(math.erf)


def run(
    program: f.Program,
    image: Array,
    call: Callable[[int, list[Array]], list[Array]] | None = None,
) -> list[Array]:
    """The outputs, each (C, H, W) in float64."""
    state = State(program, image, call)
    for op in program.ops:
        COMPUTE[type(op)](state, op)
    return [state.values[k] for k in program.outputs]


class State:
    """Values and sets while a program runs."""

    def __init__(
        self,
        program: f.Program,
        image: Array,
        call: Callable[[int, list[Array]], list[Array]] | None,
    ) -> None:
        self.call = call
        self.weights = np.asarray(program.weights, np.float64)
        self.values = [np.full(v.shape, np.nan) for v in program.values]
        self.values[0] = np.asarray(image, np.float64)
        for number, v in enumerate(program.values):
            if v.base == f.Base.WEIGHTS:
                self.values[number] = self._constant(v)
        self.sets: list[list[int]] = [[] for _ in program.sets]

    def _constant(self, v: f.Value) -> Array:
        c, h, w = np.ix_(range(v.channels), range(v.height), range(v.width))
        return self.weights[v.offset + c * v.channel_step + h * v.row_step + w]

    def channels(self, number: int, count: int) -> list[int]:
        return list(range(count)) if number == f.ALL else self.sets[number]

    def numbers(self, offset: int, count: int, otherwise: float) -> Array:
        if offset == f.NONE:
            return np.full(count, otherwise)
        return self.weights[offset : offset + count]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def activate(x: Array, act: f.Activation) -> Array:
    a, b = np.float64(np.float32(act.a)), np.float64(np.float32(act.b))
    tanh_gelu = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    with np.errstate(all='ignore'):
        return {
            f.Act.NONE: lambda: x,
            f.Act.RELU: lambda: np.maximum(x, 0),
            f.Act.CLAMP: lambda: np.minimum(np.maximum(x, a), b),
            f.Act.LEAKY_RELU: lambda: np.where(x > 0, x, a * x),
            f.Act.HARDSWISH: lambda: x * np.clip(x + 3, 0, 6) / 6,
            f.Act.HARDSIGMOID: lambda: np.clip(x / 6 + 0.5, 0, 1),
            f.Act.SILU: lambda: x * sigmoid(a * x),
            f.Act.GELU: lambda: x * (1 + erf(x / np.sqrt(2))) / 2,
            f.Act.GELU_TANH: lambda: x * (1 + np.tanh(tanh_gelu)) / 2,
            f.Act.SIGMOID: lambda: sigmoid(x),
            f.Act.TANH: lambda: np.tanh(x),
            f.Act.ELU: lambda: np.where(x > 0, x, a * np.expm1(x)),
            f.Act.MISH: lambda: x * np.tanh(np.log1p(np.exp(x))),
            f.Act.LINEAR: lambda: a * x + b,
            f.Act.GREATER: lambda: np.where(x > a, 1.0, 0.0),
            f.Act.ABS: lambda: np.abs(x),
            f.Act.SQUARE: lambda: x * x,
            f.Act.SQRT: lambda: np.sqrt(x),
            f.Act.EXP: lambda: np.exp(x),
            f.Act.LOG: lambda: np.log(x),
            f.Act.RECIPROCAL: lambda: 1 / x,
        }[f.Act(act.kind)]()


def window(
    op: f.Conv | f.Pool, x: Array, row: int, column: int
) -> list[tuple[int, float]]:
    """Taps and pixels of a channel x (H, W) that a window covers."""
    found = []
    for r in range(op.kernel[0]):
        for c in range(op.kernel[1]):
            i = row * op.stride[0] - op.padding[0] + r * op.dilation[0]
            j = column * op.stride[1] - op.padding[1] + c * op.dilation[1]
            if 0 <= i < x.shape[0] and 0 <= j < x.shape[1]:
                found.append((r * op.kernel[1] + c, x[i, j]))
    return found


def conv(s: State, op: f.Conv) -> None:
    x, y = s.values[op.x], s.values[op.y].copy()
    bias = s.numbers(op.bias, len(y), 0.0)
    ins, outs = len(x) // op.groups, len(y) // op.groups
    depthwise = op.groups > 1 and op.groups == len(x)
    read = s.channels(f.ALL if depthwise else op.in_set, len(x))
    for o in s.channels(op.out_set, len(y)):
        mine = [i for i in read if i // ins == o // outs]
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                total = bias[o]
                for i in mine:
                    at = op.weight + o * op.out_step + i % ins * op.in_step
                    for tap, pixel in window(op, x[i], row, column):
                        total += s.weights[at + tap] * pixel
                if op.add != f.NONE:
                    total += s.values[op.add][o, row, column]
                y[o, row, column] = total
        y[o] = activate(y[o], op.act)
    s.values[op.y] = y


def unary(s: State, op: f.Unary) -> None:
    y = s.values[op.y].copy()
    for k in s.channels(op.set, len(y)):
        y[k] = activate(s.values[op.x][k], op.act)
    s.values[op.y] = y


def binary(s: State, op: f.Binary) -> None:
    y = s.values[op.y].copy()
    a = np.broadcast_to(s.values[op.x1], y.shape)
    b = np.broadcast_to(s.values[op.x2], y.shape)
    compute = {
        f.Math.ADD: np.add,
        f.Math.SUB: np.subtract,
        f.Math.MUL: np.multiply,
        f.Math.DIV: np.divide,
        f.Math.MAX: np.maximum,
        f.Math.MIN: np.minimum,
    }[f.Math(op.math)]
    for k in s.channels(op.set, len(y)):
        y[k] = activate(compute(a[k], b[k]), op.act)
    s.values[op.y] = y


def affine(s: State, op: f.Affine) -> None:
    y = s.values[op.y].copy()
    scale = s.numbers(op.scale, len(y), 1.0)
    shift = s.numbers(op.shift, len(y), 0.0)
    slope = s.numbers(op.slope, len(y), 1.0)
    for k in s.channels(op.set, len(y)):
        z = scale[k] * s.values[op.x][k] + shift[k]
        y[k] = activate(np.where(z < 0, slope[k] * z, z), op.act)
    s.values[op.y] = y


def inside(op: f.Pool, shape: tuple[int, int], row: int, column: int) -> int:
    """Pixels of a window inside the image and its padding."""
    count = 1
    for axis, at in enumerate((row, column)):
        first = at * op.stride[axis] - op.padding[axis]
        taps = [first + k * op.dilation[axis] for k in range(op.kernel[axis])]
        count *= sum(k < shape[axis] + op.padding[axis] for k in taps)
    return count


def pool(s: State, op: f.Pool) -> None:
    x, y = s.values[op.x], s.values[op.y].copy()
    for k in s.channels(op.set, len(y)):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                found = [p for _, p in window(op, x[k], row, column)]
                if not op.average:
                    y[k, row, column] = np.max(found, initial=-np.inf)
                    continue
                count = len(found)
                if op.count_outside:
                    count = inside(op, x.shape[1:], row, column)
                y[k, row, column] = sum(found) / max(count, 1)
        y[k] = activate(y[k], op.act)
    s.values[op.y] = y


def mean(s: State, op: f.Mean) -> None:
    y = s.values[op.y].copy()
    for k in s.channels(op.set, len(y)):
        y[k] = activate(s.values[op.x][k].mean(keepdims=True), op.act)
    s.values[op.y] = y


def norm(s: State, op: f.Norm) -> None:
    x = s.values[op.x]
    if op.groups:
        parts = x.reshape(op.groups, -1)
        axis = 1
    else:
        parts, axis = x, 0
    parts = parts - parts.mean(axis, keepdims=True)
    parts = parts / np.sqrt((parts**2).mean(axis, keepdims=True) + op.eps)
    weight = s.numbers(op.weight, len(x), 1.0)[:, None, None]
    bias = s.numbers(op.bias, len(x), 0.0)[:, None, None]
    y = parts.reshape(x.shape) * weight + bias
    s.values[op.y] = activate(y, op.act)


def move(s: State, op: f.Move) -> None:
    x, y = s.values[op.x], s.values[op.y].copy()
    if op.zero:
        y[:] = 0
    where = set(s.channels(op.set, len(y)))
    for index in np.ndindex(*op.sizes):
        source, to = list(op.start), list(op.to)
        for k, i in enumerate(index):
            for axis in range(3):
                source[axis] += i * op.from_steps[k][axis]
                to[axis] += i * op.to_steps[k][axis]
        if to[0] in where:
            y[tuple(to)] = x[tuple(source)]
    s.values[op.y] = y


def positions(op: f.Resize, axis: int, size: int, to: int) -> list[float]:
    """Position of each pixel in x; in float32, as torch computes it."""
    one = np.float32
    step = one(op.scale[axis]) if op.scale[axis] else one(size) / one(to)
    if op.mode and op.corners:
        step = one(size - 1) / one(to - 1) if to > 1 else one(0)
    found = []
    for i in range(to):
        if op.mode and not op.corners:
            at = (one(i) + one(0.5)) * step - one(0.5)
        else:
            at = one(i) * step
        found.append(float(min(max(at, one(0)), one(size - 1))))
    return found


def resize(s: State, op: f.Resize) -> None:
    x, y = s.values[op.x], s.values[op.y].copy()
    rows = positions(op, 0, x.shape[1], y.shape[1])
    columns = positions(op, 1, x.shape[2], y.shape[2])
    for k in s.channels(op.set, len(y)):
        for r, at in enumerate(rows):
            for c, beside in enumerate(columns):
                i, j = int(at), int(beside)
                u, v = (at - i, beside - j) if op.mode else (0.0, 0.0)
                i1 = min(i + 1, x.shape[1] - 1) if u else i
                j1 = min(j + 1, x.shape[2] - 1) if v else j
                above = (1 - v) * x[k, i, j] + v * x[k, i, j1]
                below = (1 - v) * x[k, i1, j] + v * x[k, i1, j1]
                y[k, r, c] = (1 - u) * above + u * below
    s.values[op.y] = y


def attention(s: State, op: f.Attention) -> None:
    q, k, v = (s.values[n] for n in (op.q, op.k, op.v))
    y = s.values[op.y].copy()
    d, e = len(q) // op.heads, len(v) // op.heads
    for h in range(op.heads):
        for b in range(q.shape[1]):
            scores = op.scale * (
                q[h * d : h * d + d, b].T @ k[h * d : h * d + d, b]
            )
            if op.bias != f.NONE:
                bias = s.values[op.bias]
                part = bias[h % len(bias), b % bias.shape[1]]
                scores = scores + part.reshape(scores.shape)
            scores = np.exp(scores - scores.max(1, keepdims=True))
            scores /= scores.sum(1, keepdims=True)
            y[h * e : h * e + e, b] = v[h * e : h * e + e, b] @ scores.T
    s.values[op.y] = y


def list_(s: State, op: f.List) -> None:
    x = s.values[op.x][:, 0, 0]
    s.sets[op.set] = [k for k in range(len(x)) if x[k] < 0 or x[k] > 0]


def join(s: State, op: f.Join) -> None:
    found = []
    for source, repeat, numbers in op.segments:
        for k in s.channels(source, len(numbers)):
            if numbers[k] >= 0:
                found += [numbers[k] + r for r in range(repeat)]
    s.sets[op.set] = found


def top_k(s: State, op: f.TopK) -> None:
    x = s.values[op.x]
    order = sorted(range(len(x)), key=lambda k: (-x[k, 0, 0], k))[: op.k]
    y = np.zeros_like(x)
    y[order] = 1 if op.ones else x[order]
    s.values[op.y] = y


def softmax(s: State, op: f.Softmax) -> None:
    x = s.values[op.x]
    e = np.exp(x - x.max(0))
    s.values[op.y] = e / e.sum(0)


def matmul(s: State, op: f.MatMul) -> None:
    s.values[op.y] = s.values[op.x] @ s.values[op.x2]


def call(s: State, op: f.Call) -> None:
    ys = s.call(op.function, [s.values[k] for k in op.xs])
    for k, y in zip(op.ys, ys, strict=True):
        s.values[k] = np.asarray(y, np.float64)


COMPUTE: dict[type[f.Op], Callable] = {
    f.Conv: conv,
    f.Unary: unary,
    f.Binary: binary,
    f.Affine: affine,
    f.Pool: pool,
    f.Mean: mean,
    f.Norm: norm,
    f.Move: move,
    f.Resize: resize,
    f.Attention: attention,
    f.List: list_,
    f.Join: join,
    f.TopK: top_k,
    f.Call: call,
    f.Softmax: softmax,
    f.MatMul: matmul,
}
