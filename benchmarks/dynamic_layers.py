"""The kernel's conv over listed channels, layer by layer of ResNet-18.

    python benchmarks/dynamic_layers.py [--open 0.44] [--threads 1]

For every shape: torch's dense conv, torch's conv of a network shrunk to the
same width (its weights already gathered), and the kernel with random lists
of open channels, once on the output's side and once on the input's. Ratios
to the dense conv; theory is one over the share of open channels. Medians of
interleaved repeats.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

# the checkout's own package, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from coupling import interleave
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.engines import NO_CLAMP, kernel_conv
from fgc_mm.deploy.dynamic.kernel import choose_kernel

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
]
NAMES = ('dense', 'static out', 'lists out', 'static in', 'lists in')


def drawn(channels: int, share: float) -> Tensor:
    """A random list of open channels."""
    count = max(1, round(share * channels))
    return torch.randperm(channels)[:count].sort().values


def measure(layer: tuple[int, ...], share: float) -> dict[str, float]:
    """Milliseconds of one layer in every way."""
    ins, outs, kernel, stride, size = layer
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2)
    compiled = choose_kernel('kernel')
    by_out = kernel_conv(compiled, conv, NO_CLAMP, False)
    by_in = kernel_conv(compiled, conv, NO_CLAMP, True)
    x = torch.randn(1, ins, size, size)
    read, written = drawn(ins, share), drawn(outs, share)
    thin = x[:, read].contiguous()
    narrow = conv.weight[written], conv.bias[written]
    shallow = conv.weight[:, read].contiguous(), conv.bias
    where = conv.stride, conv.padding
    runs = {
        'dense': lambda: F.conv2d(x, conv.weight, conv.bias, *where),
        'static out': lambda: F.conv2d(x, *narrow, *where),
        'lists out': lambda: by_out.run(x, None, written),
        'static in': lambda: F.conv2d(thin, *shallow, *where),
        'lists in': lambda: by_in.run(thin, read, None),
    }
    seconds = interleave(runs, 25)
    return {name: 1e3 * median(t.wall) for name, t in seconds.items()}


def main() -> None:
    """All layers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--open', type=float, default=0.44)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f'{args.threads} threads, theory {1 / args.open:.2f} x')
    for layer in LAYERS:
        with torch.no_grad():
            ms = measure(layer, args.open)
        ratios = ', '.join(
            f'{name} {ms["dense"] / ms[name]:.2f} x' for name in NAMES[1:]
        )
        ins, outs, kernel, stride, size = layer
        print(
            f'{ins:4d} -> {outs:4d}, {kernel}x{kernel}/{stride}, {size:3d}: '
            f'dense {ms["dense"]:.2f} ms, {ratios}'
        )


if __name__ == '__main__':
    main()
