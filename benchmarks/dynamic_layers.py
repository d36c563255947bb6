"""The runtime's conv over listed channels, layer by layer.

    python benchmarks/dynamic_layers.py [--open 0.44] [--threads 1]

Prints the peak rate of multiply-adds of one thread for every build, and
for every shape the time of the runtime's dense conv and, as ratios to it,
those of torch's dense conv, of the runtime's conv with random lists of open
channels for its outputs or its inputs, and of its conv of a network shrunk to
the same width ('static'). The ratio of MACs is one over the fraction of open
channels. Medians of interleaved repeats.
"""

from statistics import median

import torch
import torch.nn.functional as F
from coupling import interleave
from torch import Tensor, nn

from fgc_mm.cli.arguments import text_parser
from fgc_mm.deploy.graph.emit import Emitter
from fgc_mm.runtime import format as f
from fgc_mm.runtime.cpu import cpu_name
from fgc_mm.runtime.library import (
    builds,
    can_multiply_bfloat16,
    load_library,
)
from fgc_mm.runtime.model import Model

# (channels in, channels out, kernel, stride, size of the input)
LAYERS = [
    (64, 64, 3, 1, 56),
    (64, 128, 3, 2, 56),
    (128, 128, 3, 1, 28),
    (128, 256, 3, 2, 28),
    (256, 256, 3, 1, 14),
    (256, 512, 3, 2, 14),
    (512, 512, 3, 1, 7),
    (256, 64, 1, 1, 56),
    (512, 2048, 1, 1, 7),
    (384, 1536, 1, 1, 14),
]
NAMES = ('torch', 'static out', 'lists out', 'static in', 'lists in')
PEAK_SECONDS = 0.5


def peak(build: str) -> float:
    """Measured, in 10^9 multiply-adds per second."""
    return load_library().fgc_peak(build.encode(), PEAK_SECONDS) / 1e9


def drawn(channels: int, share: float) -> Tensor:
    """A random list of open channels."""
    count = max(1, round(share * channels))
    return torch.randperm(channels)[:count].sort().values


def runtime_conv(
    conv: nn.Conv2d, size: int, reads: Tensor | None, writes: Tensor | None
) -> Model:
    """A program of a single conv, with lists that are always the same."""
    out = Emitter()
    x = out.image(conv.in_channels, size, size)
    sets = [f.ALL, f.ALL]
    for side, listed in enumerate((reads, writes)):
        if listed is not None:
            channels = (conv.in_channels, conv.out_channels)[side]
            sets[side] = out.new_list(channels)
            segment = (f.ALL, 1, listed.tolist())
            out.add(f.Join(sets[side], [segment]))
    stride, pad, kernel = conv.stride, conv.padding, conv.kernel_size
    height = (size + 2 * pad[0] - kernel[0]) // stride[0] + 1
    y = out.storage(conv.out_channels, height, height)
    weight, taps = conv.weight.detach(), kernel[0] * kernel[1]
    steps = (conv.in_channels * taps, taps)
    if reads is not None:  # the weights of one input lie side by side
        weight = weight.transpose(0, 1)
        steps = (taps, conv.out_channels * taps)
    out.add(
        f.Conv(
            x, y, f.NONE, *sets, 1, kernel, stride, pad, (1, 1),
            out.weights(weight.contiguous()), *steps,
            out.weights(conv.bias.detach()),
        )
    )  # fmt: skip
    return Model.from_bytes(f.encode(out.finish([y], 1)))


def narrow(
    conv: nn.Conv2d, reads: Tensor | slice, writes: Tensor | slice
) -> nn.Conv2d:
    """A conv of some of the channels."""
    weight = conv.weight[writes][:, reads]
    small = nn.Conv2d(
        *weight.shape[1::-1], conv.kernel_size, conv.stride, conv.padding
    )
    small.weight.copy_(weight)
    small.bias.copy_(conv.bias[writes])
    return small


def measure(
    layer: tuple[int, ...], share: float, threads: int
) -> dict[str, float]:
    """Milliseconds of one layer in every way."""
    ins, outs, kernel, stride, size = layer
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2)
    x = torch.randn(1, ins, size, size)
    read, written = drawn(ins, share), drawn(outs, share)
    image, thin = x.numpy(), x[:, read].numpy()
    fewer_out = narrow(conv, slice(None), written)
    fewer_in = narrow(conv, read, slice(None))
    models = {
        'dense': (runtime_conv(conv, size, None, None), image),
        'static out': (runtime_conv(fewer_out, size, None, None), image),
        'lists out': (runtime_conv(conv, size, None, written), image),
        'static in': (runtime_conv(fewer_in, size, None, None), thin),
        'lists in': (runtime_conv(conv, size, read, None), image),
    }
    runs = {
        name: lambda model=model, given=given: model.run(
            given, threads=threads
        )
        for name, (model, given) in models.items()
    }
    where = conv.stride, conv.padding
    runs['torch'] = lambda: F.conv2d(x, conv.weight, conv.bias, *where)
    seconds = interleave(runs, 25)
    return {name: 1e3 * median(t.wall) for name, t in seconds.items()}


def main() -> None:
    """All layers."""
    parser = text_parser(__doc__)
    parser.add_argument('--open', type=float, default=0.44)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    names = [*builds(), *(['bfloat16'] if can_multiply_bfloat16() else [])]
    peaks = ', '.join(f'{peak(name):.0f} ({name})' for name in names)
    print(f'{cpu_name()}, GMAC/s at most on one thread: {peaks}')
    print(
        f'build {names[0]}, {args.threads} threads, MACs ratio '
        f'{1 / args.open:.2f} x'
    )
    for layer in LAYERS:
        with torch.no_grad():
            ms = measure(layer, args.open, args.threads)
        ratios = ', '.join(
            f'{name} {ms["dense"] / ms[name]:.2f} x' for name in NAMES
        )
        ins, outs, kernel, stride, size = layer
        out = -(-size // stride)
        rate = ins * outs * kernel**2 * out**2 / ms['dense'] / 1e6
        print(
            f'{ins:4d} -> {outs:4d}, {kernel}x{kernel}/{stride}, {size:3d}: '
            f'dense {ms["dense"]:.2f} ms, {ratios}; {rate:.0f} GMAC/s'
        )


if __name__ == '__main__':
    main()
