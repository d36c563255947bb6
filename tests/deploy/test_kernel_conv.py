"""The compiled kernel against torch, on any lists of channels."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgc_mm.deploy.dynamic.engines import NO_CLAMP, TorchConv, kernel_conv
from fgc_mm.deploy.dynamic.gate import FusedGate, PlainGate
from fgc_mm.deploy.dynamic.kernel import load_kernel
from fgc_mm.gates import BinaryConcreteGate

KERNEL, PROBLEM = load_kernel()
pytestmark = pytest.mark.skipif(KERNEL is None, reason=f'kernel: {PROBLEM}')

SHAPES = list(
    itertools.product(
        (1, 3, 5, 7),  # kernel
        (1, 2, 3),  # stride
        ((7, 7), (9, 14), (16, 5), (31, 33)),
    )
)


def some(count, generator):
    """A random list of channels, at least one."""
    size = int(torch.randint(1, count + 1, (), generator=generator))
    order = torch.randperm(count, generator=generator)
    return order[:size].sort().values


def conv_of(*args, **options):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Conv2d(*args, **options)


def expected(conv, x, inputs, outputs):
    weight, bias = conv.weight, conv.bias
    groups = conv.groups
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
        groups = len(weight) if groups > 1 else 1
    if inputs is not None:
        weight = weight[:, inputs]
    return F.conv2d(
        x, weight, bias, conv.stride, conv.padding, conv.dilation, groups
    )


@pytest.mark.parametrize('by_input', [False, True])
@pytest.mark.parametrize('kernel, stride, size', SHAPES)
@torch.no_grad()
def test_lists_on_both_sides(kernel, stride, size, by_input):
    generator = torch.Generator().manual_seed(kernel + 10 * stride)
    for padding in {0, kernel // 2, kernel - 1}:
        if min(size) + 2 * padding < kernel:
            continue
        conv = conv_of(11, 13, kernel, stride, padding)
        engine = kernel_conv(KERNEL, conv, NO_CLAMP, by_input)
        for lists in itertools.product((True, False), repeat=2):
            inputs, outputs = (
                some(n, generator) if wanted else None
                for n, wanted in zip((11, 13), lists)
            )
            width = 11 if inputs is None else len(inputs)
            x = torch.randn(2, width, *size, generator=generator)
            want = expected(conv, x, inputs, outputs)
            got = engine.run(x, inputs, outputs)
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
            plain = TorchConv(conv).run(x, inputs, outputs)
            torch.testing.assert_close(plain, want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize('kernel, stride, size', SHAPES)
@torch.no_grad()
def test_depthwise(kernel, stride, size):
    generator = torch.Generator().manual_seed(kernel)
    conv = conv_of(9, 9, kernel, stride, kernel // 2, groups=9)
    engine = kernel_conv(KERNEL, conv, NO_CLAMP, False)
    for outputs in (None, some(9, generator)):
        width = 9 if outputs is None else len(outputs)
        x = torch.randn(2, width, *size, generator=generator)
        want = expected(conv, x, None, outputs)
        got = engine.run(x, None, outputs)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
        plain = TorchConv(conv).run(x, None, outputs)
        torch.testing.assert_close(plain, want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'shape',
    [
        dict(kernel_size=(1, 5), padding=(0, 2)),
        dict(kernel_size=(3, 1), padding=(1, 0), stride=(2, 1)),
        dict(kernel_size=3, padding=2, dilation=2),
        dict(kernel_size=3, padding=3, dilation=(3, 1), stride=(1, 2)),
    ],
)
@torch.no_grad()
def test_odd_geometries(shape):
    conv = conv_of(4, 6, **shape)
    x = torch.randn(1, 4, 12, 10)
    for by_input in (False, True):
        got = kernel_conv(KERNEL, conv, NO_CLAMP, by_input).run(x, None, None)
        torch.testing.assert_close(got, conv(x), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_wide_layers_are_summed_in_parts():
    """More inputs and pixels than one round takes."""
    for kernel in (1, 3):
        conv = conv_of(700, 20, kernel, padding=kernel // 2)
        x = torch.randn(1, 700, 30, 29)
        got = kernel_conv(KERNEL, conv, NO_CLAMP, True).run(x, None, None)
        torch.testing.assert_close(got, conv(x), atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_two_threads_share_the_work():
    before = torch.get_num_threads()
    conv = conv_of(40, 24, 3, padding=1)
    thin = conv_of(24, 24, 3, padding=1, groups=24)
    x = torch.randn(1, 40, 33, 31)
    try:
        torch.set_num_threads(2)
        got = kernel_conv(KERNEL, conv, NO_CLAMP, False).run(x, None, None)
        deep = kernel_conv(KERNEL, thin, NO_CLAMP, False).run(got, None, None)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, conv(x), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(deep, thin(got), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_strided_images_and_no_channel_at_all():
    conv = conv_of(6, 7, 3, padding=1)
    engine = kernel_conv(KERNEL, conv, NO_CLAMP, False)
    x = torch.randn(2, 12, 9, 20)
    for view in (
        x[:, ::2, :, :10],
        x[:, :6].to(memory_format=torch.channels_last),
        x[:, :6].transpose(2, 3),
    ):
        got = engine.run(view, None, None)
        torch.testing.assert_close(got, conv(view), atol=2e-5, rtol=1e-5)
    none = torch.empty(0, dtype=torch.long)
    assert engine.run(x[:, :6], None, none).shape == (2, 0, 9, 20)
    bias = conv.bias.reshape(1, -1, 1, 1).expand(2, 7, 9, 20)
    torch.testing.assert_close(engine.run(x[:, :0], none, None), bias)


@torch.no_grad()
def test_the_last_plane_is_not_read_beyond_its_memory():
    """A pointwise conv reads maps in place; nan lies right behind them."""
    memory = torch.full((3 * 49 + 64,), float('nan'))
    x = memory[: 3 * 49].view(1, 3, 7, 7).normal_()
    conv = conv_of(3, 8, 1)
    got = kernel_conv(KERNEL, conv, NO_CLAMP, False).run(x, None, None)
    torch.testing.assert_close(got, conv(x))
    alone = x.clone()
    got = kernel_conv(KERNEL, conv, NO_CLAMP, False).run(alone, None, None)
    torch.testing.assert_close(got, conv(alone))


@torch.no_grad()
def test_clamps_keep_nan():
    conv = conv_of(3, 5, 3, padding=1)
    x = 9 * torch.randn(1, 3, 6, 6)
    got = kernel_conv(KERNEL, conv, (0.0, 6.0), False).run(x, None, None)
    torch.testing.assert_close(got, conv(x).clamp(0, 6))
    assert (got == 0).any()
    assert (got == 6).any()
    x[0, 0, 3, 3] = float('nan')
    got = kernel_conv(KERNEL, conv, (0.0, 6.0), False).run(x, None, None)
    assert torch.equal(got.isnan(), conv(x).isnan())


def test_wrong_lists_are_refused():
    engine = kernel_conv(KERNEL, conv_of(4, 4, 1), NO_CLAMP, False)
    x = torch.randn(1, 4, 3, 3)
    for inputs, outputs in [
        (torch.tensor([0, 1]), None),
        (torch.tensor([0, 1, 2, 4]), None),
        (None, torch.tensor([-1])),
        (None, torch.tensor([0.0])),
    ]:
        with pytest.raises(RuntimeError, match='channel'):
            engine.run(x, inputs, outputs)


@pytest.mark.parametrize('shape', [(3, 2, 1), (2, 2, 0), (5, 3, 2), (3, 1, 1)])
def test_max_pool(shape):
    for size in ((7, 9), (12, 12), (5, 6)):
        x = torch.randn(2, 3, *size)
        want = F.max_pool2d(x, *shape)
        assert torch.equal(KERNEL.max_pool(x, *shape), want)
    x[0, 0, 2, 2] = float('nan')
    want = F.max_pool2d(x, *shape).isnan()
    assert torch.equal(KERNEL.max_pool(x, *shape).isnan(), want)


@torch.no_grad()
def test_the_gate_in_one_call():
    torch.manual_seed(0)
    gate = BinaryConcreteGate(10, 21, threshold=0.6).eval()
    for values in (gate.norm.running_mean, gate.norm.bias):
        values.normal_()
    for values in (gate.norm.running_var, gate.norm.weight):
        values.uniform_(0.5, 2)
    fused = FusedGate(copy.deepcopy(gate), KERNEL)
    plain = PlainGate(gate, 10)
    listed = torch.tensor([1, 4, 5, 9])
    for x, where in [
        (torch.randn(3, 10, 6, 7), None),
        (torch.randn(1, 10, 40, 41), None),
        (torch.randn(1, 4, 5, 5), listed),
        (torch.randn(1, 0, 5, 5), listed[:0]),
    ]:
        got, want = fused.run(x, where), plain.run(x, where)
        for one, other in zip(got.decision, want.decision):
            torch.testing.assert_close(one, other)
        assert torch.equal(got.index, want.index)
        assert 0 < want.decision.mask.mean() < 1
