"""The program of a dynamic network, and its file format.

A program computes one image at a time. All values are float32 maps of
(channels, height, width): tokens (L, C) are maps of (C, 1, L), vectors (C)
maps of (C, 1, 1). Values are at fixed offsets in one arena, the image, or
the weights.

A *set* is an index list of channels that differs between images; set ``-1``
has all channels. An op with a set computes (or reads) only the listed
channels, each at its own index: channels are not packed, and the other
channels of a value are undefined and never read.

The file is the header (64 bytes), the program as little-endian int64 words,
the weights as little-endian float32 from the next multiple of 64 bytes on,
and JSON in UTF-8 at the next multiple of 64 bytes:

========  ==============================================================
bytes     header
========  ==============================================================
0 to 7    ``fgcmodel``
8 to 15   version (uint64), 1
16 to 23  words of the program (uint64)
24 to 31  weights, in float32 (uint64)
32 to 39  bytes of the JSON (uint64)
40 to 47  CRC-32 (zlib's) of all bytes from 64 on (uint64)
48 to 55  1: convs use bfloat16 where that is faster, otherwise 0
56 to 63  zeros
========  ==============================================================
"""

from __future__ import annotations

import enum
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

MAGIC = b'fgcmodel'
VERSION = 1
HEADER = 64
ALIGN = 64
ALL = -1  # the set of all channels
NONE = -1  # no value, no weights


class Base(enum.IntEnum):
    """Memory of a value."""

    ARENA = 0
    IMAGE = 1  # (C, H, W) of one image, contiguous; only value 0
    WEIGHTS = 2  # constant


class Act(enum.IntEnum):
    """Elementwise functions; ``a`` and ``b`` are their parameters."""

    NONE = 0
    RELU = 1  # nan stays nan, here and in CLAMP
    CLAMP = 2  # min(max(x, a), b)
    LEAKY_RELU = 3  # x if x > 0 else a x
    HARDSWISH = 4  # x min(max(x + 3, 0), 6) / 6
    HARDSIGMOID = 5  # min(max(x / 6 + 1/2, 0), 1)
    SILU = 6  # x sigmoid(a x)
    GELU = 7  # x (1 + erf(x / sqrt 2)) / 2
    GELU_TANH = 8
    SIGMOID = 9
    TANH = 10
    ELU = 11  # x if x > 0 else a (exp(x) - 1)
    MISH = 12  # x tanh(log(1 + exp(x)))
    LINEAR = 13  # a x + b
    GREATER = 14  # 1 if x > a else 0
    ABS = 15
    SQUARE = 16
    SQRT = 17
    EXP = 18
    LOG = 19
    RECIPROCAL = 20


class Math(enum.IntEnum):
    """Operations of a binary op."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5


@dataclass
class Activation:
    """Elementwise function applied to the result of an op."""

    kind: Act = Act.NONE
    a: float = 0.0
    b: float = 0.0


@dataclass
class Value:
    """A map (channels, height, width) and its memory layout.

    Attributes:
        base: Memory that the offset refers to.
        offset: float32 from the base to the first pixel of channel 0, after
            its padding.
        channel_step: Stride of channels, in float32.
        row_step: Stride of rows, in float32, at least width + pad.
        pad: Zero padding of every channel: ``pad`` rows above and below, and
            ``pad`` columns; the columns on the right of a row are those on
            the left of the next row. Ops that write a channel also write its
            padding.
    """

    channels: int
    height: int
    width: int
    base: int = Base.ARENA
    offset: int = 0
    channel_step: int = 0
    row_step: int = 0
    pad: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass
class Op:
    """Base class; fields are written in the order of their definition.

    Attributes:
        kind: Number of the class in files.
        records_only: Skipped by runs that do not request decisions.
    """

    kind: ClassVar[int]
    records_only: bool = field(default=False, kw_only=True)


@dataclass
class Conv(Op):
    """``y = act(conv(x) + bias + add)``; linear layers are 1 x 1 convs.

    Attributes:
        x: Input value.
        y: Output value.
        add: Value with the shape of y that is added, or ``NONE``; may be y.
        in_set: Channels of x that are read; the others count as 0.
        out_set: Channels of y that are written.
        groups: 1, or the groups of a grouped conv; if it is the number of
            channels of x (depthwise), out_set lists channels of y and
            channel o reads x's channel ``o // (C_out / groups)``; other
            grouped convs have ``in_set == out_set == ALL``.
        kernel, stride, padding (above, left), dilation: For rows, columns.
        weight: Offset in the weights, in float32; the weight of output o,
            input i of its group, tap t is at
            ``weight + o * out_step + i * in_step + t``, taps row by row.
        bias: Offset of C_out numbers, or ``NONE``.
    """

    kind = 0
    x: int
    y: int
    add: int
    in_set: int
    out_set: int
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    weight: int
    out_step: int
    in_step: int
    bias: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Unary(Op):
    """``y = act(x)`` for the channels of ``set``; y may be x."""

    kind = 1
    x: int
    y: int
    set: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Binary(Op):
    """``y = act(x1 op x2)``; y may be x1 or x2.

    Channels, height and width of x1 and x2 are each those of y or 1.
    """

    kind = 2
    x1: int
    x2: int
    y: int
    set: int
    math: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Affine(Op):
    """``y[c] = act(scale[c] x[c] + shift[c])``; y may be x.

    Attributes:
        scale: Offset of C numbers, or ``NONE`` (1).
        shift: The same, or ``NONE`` (0).
        slope: The same: factor of negative results (PReLU), before act; or
            ``NONE``.
    """

    kind = 3
    x: int
    y: int
    set: int
    scale: int
    shift: int
    slope: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Pool(Op):
    """Max or average over windows, for the channels of ``set``.

    Attributes:
        average: 0: max (padding is ignored), 1: average.
        kernel, stride, padding (above, left), dilation: For rows, columns.
        count_outside: For an average: 1 divides by the window's pixels
            inside the image and its padding (``padding`` on both sides), 0
            by those inside the image.
        act: Applied to the result.
    """

    kind = 4
    x: int
    y: int
    set: int
    average: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    count_outside: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Mean(Op):
    """Mean over all pixels: x (C, H, W) to y (C, 1, 1), for ``set``."""

    kind = 5
    x: int
    y: int
    set: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Norm(Op):
    """``y = act((x - mean) / sqrt(var + eps) * weight[c] + bias[c])``.

    Attributes:
        groups: 0: mean and variance over the channels of each pixel (layer
            norm of tokens), otherwise over all pixels of each of this many
            groups of neighbouring channels (group norm; 1: layer norm of a
            map). The variance is the biased one.
        eps: Added to the variance.
        weight: Offset of C numbers, or ``NONE``.
        bias: The same.
    """

    kind = 6
    x: int
    y: int
    groups: int
    eps: float
    weight: int
    bias: int
    act: Activation = field(default_factory=Activation)


@dataclass
class Move(Op):
    """Copies a strided box: slices, concatenation, transposition, ...

    For every index ``i`` below ``sizes``: ``y[to + sum_k i_k * to_steps_k] =
    x[from_ + sum_k i_k * from_steps_k]``, all coordinates (channel, row,
    column). Other elements of y are not changed.

    Attributes:
        zero: Whether y is set to 0 first.
        set: Channels of y that are written, or ``ALL``. With ``zero`` the
            other channels become 0.
        start: (3,) first coordinates in x.
        to: (3,) first coordinates in y.
        sizes: (n,) n at most 8.
        from_steps: (n, 3), may be negative.
        to_steps: (n, 3), not negative.
    """

    kind = 7
    x: int
    y: int
    set: int
    zero: int
    start: tuple[int, int, int]
    to: tuple[int, int, int]
    sizes: list[int]
    from_steps: list[tuple[int, int, int]]
    to_steps: list[tuple[int, int, int]]


@dataclass
class Resize(Op):
    """Resizes to the size of y, for the channels of ``set``.

    Attributes:
        mode: 0: nearest (``floor(r * scale)``), 1: bilinear.
        corners: Bilinear: 1 aligns the corners (torch's align_corners).
        scale: For rows and columns: step in x per step in y; 0: the ratio of
            sizes.
    """

    kind = 8
    x: int
    y: int
    set: int
    mode: int
    corners: int
    scale: tuple[float, float]


@dataclass
class Attention(Op):
    """``softmax(scale q k^T + bias) v`` for every head and row.

    q, y: (heads * d, B, L); k: (heads * d, B, M); v, with its own d' and y's:
    (heads * d', B, M). Rows (B) are batches, e.g. windows of an image.

    Attributes:
        bias: Value added to the scores, or ``NONE``: (heads, or 1, B or 1,
            L * M), the score of query l and key m at ``l * M + m``.
    """

    kind = 9
    q: int
    k: int
    v: int
    bias: int
    y: int
    heads: int
    scale: float


@dataclass
class List(Op):
    """Sets a set to the nonzero channels of x (C, 1, 1); nan is closed."""

    kind = 10
    x: int
    set: int


@dataclass
class Join(Op):
    """Sets a set to the concatenation of segments.

    A segment is ``(source, repeat, numbers)``: channel c of the source set
    (``ALL``: every c below ``len(numbers)``) becomes ``numbers[c]``,
    ``numbers[c] + 1``, ... (``repeat`` of them); nothing if it is negative.
    """

    kind = 11
    set: int
    segments: list[tuple[int, int, list[int]]]


@dataclass
class TopK(Op):
    """y (C, 1, 1): x where it is among the k largest, otherwise 0.

    Ties: the first ones. With ``ones``, 1 instead of x.
    """

    kind = 12
    x: int
    y: int
    k: int
    ones: int


@dataclass
class Softmax(Op):
    """``y = exp(x) / sum of exp(x)``, over the channels of each pixel."""

    kind = 14
    x: int
    y: int


@dataclass
class MatMul(Op):
    """``y = x w``: a matrix product of rows and columns for each channel.

    x: (C, I, K), w: (C, K, J), y: (C, I, J).
    """

    kind = 15
    x: int
    x2: int
    y: int


@dataclass
class Call(Op):
    """Function number ``function`` of the caller computes ys from xs."""

    kind = 13
    function: int
    xs: list[int]
    ys: list[int]


@dataclass
class Program:
    """One network, for images of one size.

    Attributes:
        arena: Size of the arena in float32, including what ops may read
            beyond values with whole vectors (see :data:`SLACK`).
        values: Number 0 is the image.
        sets: For every set the number of channels it chooses from.
        ops: In execution order.
        outputs: Values that a run returns, each (C, H, W).
        weights: (n,) float32.
        names: Description of every op.
        records: Number of leading outputs that are not decisions; the others
            are computed only if a run requests decisions.
        meta: Further entries of the file's JSON.
        bfloat16: Whether convs of several channels round their inputs and
            weights to bfloat16, where that is faster; sums are float32.
    """

    arena: int = 0
    values: list[Value] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    weights: Any = field(default_factory=lambda: np.zeros(0, np.float32))
    names: list[str] = field(default_factory=list)
    records: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    bfloat16: bool = False


SLACK = 256  # float32 after the last value that a vector may read


def encode(program: Program) -> bytes:
    """The bytes of the file."""
    words = [
        program.arena,
        program.records,
        len(program.values),
        len(program.sets),
        len(program.ops),
        len(program.outputs),
    ]
    for v in program.values:
        words += [v.channels, v.height, v.width, int(v.base), v.offset]
        words += [v.channel_step, v.row_step, v.pad]
    words += program.sets
    for op in program.ops:
        fields = _words(op)
        words += [op.kind, len(fields), *fields]
    words += program.outputs
    weights = np.ascontiguousarray(program.weights, '<f4')
    meta = json.dumps(dict(program.meta, names=program.names)).encode()
    body = _aligned(np.array(words, '<i8').tobytes())
    body += _aligned(weights.tobytes()) + meta
    header = struct.pack(
        '<8s6Q8x',
        MAGIC,
        VERSION,
        len(words),
        weights.size,
        len(meta),
        zlib.crc32(body),
        program.bfloat16,
    )
    return header + body


def _aligned(data: bytes) -> bytes:
    return data + b'\0' * (-len(data) % ALIGN)


def _words(op: Op) -> list[int]:
    """records_only, then the fields of the op's class, in order.

    A float is stored as the bits of a float64; a tuple as its items; a list
    as its length and its items; an activation as its kind, a and b.
    """
    words = [int(op.records_only)]
    for name, annotation in type(op).__annotations__.items():
        words += _flat(getattr(op, name), 'float' in annotation)
    return words


def _flat(value: Any, real: bool) -> list[int]:
    if isinstance(value, Activation):
        return [
            int(value.kind),
            *_flat(value.a, True),
            *_flat(value.b, True),
        ]
    if isinstance(value, list):
        return [len(value), *_flat(tuple(value), real)]
    if isinstance(value, tuple):
        return [word for item in value for word in _flat(item, real)]
    if real:
        return list(struct.unpack('<q', struct.pack('<d', value)))
    return [int(value)]
