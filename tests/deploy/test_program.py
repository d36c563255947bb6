"""Networks as one call of the kernel, against their own forward code."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgc_mm.deploy.dynamic.arena import places
from fgc_mm.deploy.dynamic.fold import fold
from fgc_mm.deploy.dynamic.kernel import load_kernel
from fgc_mm.deploy.dynamic.program import NetworkProgram
from fgc_mm.deploy.dynamic.record import NotRecordable, Recorder, fused

KERNEL, PROBLEM = load_kernel()
pytestmark = pytest.mark.skipif(KERNEL is None, reason=f'kernel: {PROBLEM}')


class Network(nn.Module):
    """Some layers, and what a test does with them."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.does = forward

    def forward(self, x):
        return self.does(x, *self.layers)


def conv(ins, outs, size=3, **options):
    if 'padding' not in options:
        options['padding'] = size // 2
    return nn.Conv2d(ins, outs, size, **options)


def norm(channels):
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias)
    return layer


def residual(x, stem, first, second):
    x = stem(x)
    out = second(F.relu(first(x)))
    out += x
    return (F.relu(out, inplace=True),)


def projected(x, stem, first, second, beside):
    x = stem(x)
    out = second(F.relu6(first(x)))
    return (F.relu(out + beside(x)),)


def used_twice(x, stem, first):
    x = stem(x)
    out = first(x)
    return out + F.relu(out), F.relu(x), x


def returned_and_summed(x, stem, first, second):
    x = stem(x)
    out, other = first(x), second(x)
    return out, out + x, other, F.relu(other)


def summed_behind_a_clamp(x, stem, first):
    x = stem(x)
    return (F.relu(first(x)) + x,)


def doubled(x, stem):
    x = stem(x)
    return (F.relu(x + x),)


def pre_activated(x, stem, first):
    x = stem(x)
    out = first(F.relu(x))
    return (x + out, F.relu(x + out))


def shortcut_a(x, stem, first, second):
    x = stem(x)
    thin = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))
    return (F.relu(second(F.relu(first(x))) + thin),)


def pooled(x, stem, pool, first):
    return (first(pool(F.relu(stem(x)))),)


def classified(x, stem, linear, other):
    x = F.relu(stem(x))
    pooled = F.adaptive_avg_pool2d(x, 1)
    return linear(pooled.view(1, -1)), other(pooled.flatten(1)), pooled


def padded_behind(x, stem, first, second):
    x = second(first(stem(x)))
    return (F.pad(x, (0, 0, 0, 0, 0, 3)),)


def conv_of_a_mean(x, stem, first, second):
    x = first(stem(x))
    return (second(F.adaptive_avg_pool2d(x, 1)),)


def chain(x, *layers):
    for layer in layers:
        x = layer(x)
    return (x,)


CASES = {
    'residual': (residual, conv(3, 4), conv(4, 5), conv(5, 4)),
    'projected': (
        projected, conv(3, 4), conv(4, 5, stride=2), conv(5, 6),
        conv(4, 6, 1, stride=2),
    ),
    'used twice': (used_twice, conv(3, 4), conv(4, 4)),
    'returned and summed': (
        returned_and_summed, conv(3, 4), conv(4, 4), conv(4, 4),
    ),
    'summed behind a clamp': (
        summed_behind_a_clamp, conv(3, 4), conv(4, 4),
    ),
    'doubled': (doubled, conv(3, 4)),
    'pre-activated': (pre_activated, conv(3, 4), conv(4, 4)),
    'shortcut A': (shortcut_a, conv(3, 4), conv(4, 6, stride=2), conv(6, 9)),
    'pooled': (pooled, conv(3, 4), nn.MaxPool2d(3, 2, 1), conv(4, 4)),
    'pooled without a border': (
        pooled, conv(3, 4, 5), nn.MaxPool2d(2), conv(4, 4, 1),
    ),
    'padded behind': (
        padded_behind, conv(3, 9), conv(9, 4), conv(4, 4),
    ),
    'conv of a mean': (
        conv_of_a_mean, conv(3, 9), conv(9, 4), conv(4, 5),
    ),
    'classified': (classified, conv(3, 4), nn.Linear(4, 7), nn.Linear(4, 2)),
    'many geometries': (
        chain, conv(3, 7, 1), conv(7, 5, 5), conv(5, 5, 3, groups=5),
        conv(5, 4, 3, padding=0), conv(4, 6, 3, dilation=2, padding=2),
        conv(6, 6, (1, 5), padding=(0, 2)), conv(6, 6, 5, groups=6),
        conv(6, 6, 3, groups=6, stride=2), conv(6, 3, 2, padding=1),
    ),
    'norms and activations': (
        chain, conv(3, 8, bias=False), norm(8), nn.ReLU(inplace=True),
        conv(8, 8, groups=8), norm(8), nn.ReLU6(), conv(8, 20, 1), norm(20),
        nn.Dropout(0.5), nn.Identity(),
    ),
}  # fmt: skip


def program_of(network, image):
    fold(network, image, compiled=True)
    return NetworkProgram(network, [], image, KERNEL)


@pytest.mark.parametrize('size', [(1, 1), (6, 7), (12, 33), (40, 9)])
@pytest.mark.parametrize('name', CASES)
@torch.no_grad()
def test_a_program_does_what_the_network_does(name, size):
    torch.manual_seed(0)
    forward, *layers = CASES[name]
    network = Network(forward, *layers).eval()
    images = torch.randn(3, 3, *size)
    if min(size) < 2 and name in (
        'many geometries',
        'pooled without a border',
    ):
        return
    want = [network(image) for image in images.split(1)]
    program = program_of(network, images[:1])
    got, _ = program.run(images)
    for number, output in enumerate(got):
        expected = torch.cat([outputs[number] for outputs in want])
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    again, _ = program.run(images[1:2])  # what lies about does no harm
    for output, expected in zip(again, want[1]):
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sums_and_clamps_join_the_convs():
    for name, kinds in [
        ('residual', ['conv', 'conv', 'conv']),
        ('projected', ['conv', 'conv', 'conv', 'conv']),
        ('used twice', ['conv', 'conv', 'copy', 'add', 'copy']),
        ('shortcut A', ['conv', 'copy', 'copy', 'conv', 'conv']),
    ]:
        forward, *layers = CASES[name]
        network = Network(forward, *layers).eval()
        image = torch.randn(1, 3, 8, 8)
        fold(network, image, compiled=True)
        steps = fused(Recorder().record(network, image))
        assert [step.kind for step in steps] == kinds, name


def changes_a_view(x, stem):
    x = stem(x)
    view = x[:, :, ::2, ::2]
    F.relu(x, inplace=True)
    return (view,)


def changes_in_silence(x, stem):
    x = stem(x)
    negate(x)
    return (x,)


def changes_before_a_layer(x, stem):
    x = stem(x)
    negate(x)
    return (stem(x),)


def negate(x):
    with torch._C.DisableTorchFunction():  # as compiled code does
        x.neg_()


def adds_a_constant(x, stem):
    return (stem(x) + torch.ones(1, 3, 1, 1),)


@pytest.mark.parametrize(
    'forward, says',
    [
        (lambda x, stem: (stem(x).sigmoid(),), 'it calls sigmoid'),
        (lambda x, stem: (stem(x) + 1,), 'no step has made'),
        (lambda x, stem: (stem(x) * 2,), 'it calls mul'),
        (lambda x, stem: (stem(x)[:, :2],), 'it calls __getitem__'),
        (lambda x, stem: (F.pad(stem(x), (1, 1)),), 'it calls pad'),
        (lambda x, stem: (torch.add(stem(x), x, alpha=2),), 'it calls add'),
        (lambda x, stem: (F.adaptive_avg_pool2d(stem(x), 2),), 'it calls'),
        (lambda x, stem: (stem(x).flatten(1),), 'it calls flatten'),
        (lambda x, stem: [stem(x)], 'it returns a list'),
        (lambda x, stem: (torch.ones(1),), 'no step has made'),
        (changes_a_view, 'that has views'),
        (adds_a_constant, 'no step has made'),
        (changes_in_silence, 'out of sight'),
        (changes_before_a_layer, 'out of sight'),
        (lambda x, stem: (torch.relu_(input=stem(x)),), 'it calls relu_'),
        (lambda x, stem: (stem(x).add(other=x),), 'it calls add'),
    ],
)
def test_what_is_no_step_is_named(forward, says):
    network = Network(forward, conv(3, 3)).eval()
    image = torch.randn(1, 3, 8, 8)
    with pytest.raises(NotRecordable, match=says):
        program_of(network, image)


def linear_of_maps(x, linear):
    return (linear(x),)


def product(x, _):
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return (F.linear(x, x),)


@pytest.mark.parametrize('forward', [linear_of_maps, product])
def test_linear_layers_read_vectors_with_their_own_weights(forward):
    network = Network(forward, nn.Linear(8, 5)).eval()
    with pytest.raises(NotRecordable, match='it calls linear'):
        program_of(network, torch.randn(1, 3, 8, 8))


@torch.no_grad()
def test_arguments_may_have_names():
    network = Network(
        lambda x, linear: F.linear(
            F.adaptive_avg_pool2d(x, output_size=(1, 1)).flatten(1),
            weight=linear.weight,
            bias=linear.bias,
        ),
        nn.Linear(3, 5),
    )
    image = torch.randn(1, 3, 8, 8)
    got = program_of(network, image).run(image)[0]
    torch.testing.assert_close(got, network(image))


@torch.inference_mode()
def test_the_image_stays_as_it_is():
    network = Network(lambda x, a: (F.relu(a(x.add_(x))),), conv(3, 4))
    image = torch.randn(1, 3, 8, 8)
    before = image.clone()
    fold(network, image.clone(), compiled=True)
    program = NetworkProgram(network, [], image, KERNEL)
    got = program.run(image)[0][0]
    assert torch.equal(image, before)
    torch.testing.assert_close(got, network(image)[0])


def test_other_images_are_refused():
    forward, *layers = CASES['residual']
    program = program_of(Network(forward, *layers), torch.randn(1, 3, 8, 8))
    for other in (
        torch.randn(1, 3, 8, 9),
        torch.randn(1, 4, 8, 8),
        torch.randn(1, 3, 8, 8).double(),
        torch.randn(3, 8, 8),
    ):
        with pytest.raises(RuntimeError, match='for other images'):
            program.run(other)


@torch.no_grad()
def test_threads_share_a_batch_and_a_layer():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    layers = conv(3, 40), conv(40, 48), nn.Linear(48, 2000)
    network = Network(
        lambda x, a, b, c: (
            c(F.adaptive_avg_pool2d(b(F.relu(a(x))), 1).flatten(1)),
        ),
        *layers,
    )
    images = torch.randn(5, 3, 61, 60)
    want = torch.cat([network(image)[0] for image in images.split(1)])
    program = program_of(network, images[:1])
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got = program.run(images)[0][0]
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
            one = program.run(images[:1])[0][0]
            torch.testing.assert_close(one, want[:1], atol=1e-5, rtol=1e-5)
            program.keep_alone(['layers.1', 'linear'])
            assert torch.equal(program.run(images)[0][0], got)
            assert torch.equal(program.run(images[:1])[0][0], one)
            program.keep_alone([])
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_python_threads_do_not_disturb_each_other():
    torch.manual_seed(0)
    forward, *layers = CASES['projected']
    network = Network(forward, *layers)
    images = torch.randn(8, 3, 40, 40)
    want = [network(image)[0] for image in images.split(1)]
    program = program_of(network, images[:1])

    def run(number):
        got = [program.run(images[number : number + 1])[0][0]
               for _ in range(50)]  # fmt: skip
        return all(torch.allclose(x, want[number], atol=1e-5) for x in got)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(8)))


def test_every_step_has_a_name_and_a_time():
    forward, *layers = CASES['shortcut A']
    image = torch.randn(1, 3, 8, 8)
    program = program_of(Network(forward, *layers), image)
    names = ['layers.0', 'copy', 'copy', 'layers.1', 'layers.2']
    assert program.names == names
    seconds = program.seconds(image, 3)
    assert len(seconds) == len(names)
    assert all(0 < taken < 1 for taken in seconds)


def test_values_that_live_together_lie_apart():
    draw = random.Random(0)
    for _ in range(200):
        count = draw.randint(0, 12)
        sizes = [draw.randint(0, 9) for _ in range(count)]
        births = [draw.randint(0, 8) for _ in range(count)]
        lives = [(birth, birth + draw.randint(0, 4)) for birth in births]
        offsets, whole = places(sizes, lives)
        memory = {}
        for value in range(count):
            for step in range(lives[value][0], lives[value][1] + 1):
                for byte in range(sizes[value]):
                    at = (step, offsets[value] + byte)
                    assert memory.setdefault(at, value) == value
                    assert at[1] < whole


def test_memory_is_used_again():
    offsets, whole = places([5, 3, 5, 2], [(0, 1), (1, 2), (2, 3), (3, 3)])
    assert offsets == [0, 5, 0, 5]
    assert whole == 8
