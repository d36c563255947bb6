"""What gates, and then coupling, add to a training step of ResNet-20.

    python benchmarks/training_step.py

Whole steps (preprocessing, forward, losses, backward, optimizer) of the
configs dense_ and bas_resnet20_cifar10.py on random images, interleaved in
one process; then the report of benchmarks/coupling.py. Freed memory is kept
for the next step, as `fgc-mm train` does on a CPU; --default-allocator uses
glibc's defaults.
"""

import logging
import os
from collections.abc import Callable
from statistics import median

import torch
from coupling import Sizes, interleave, report_coupling
from training import build_training, random_batch, read_config

from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.freed_memory import keep_freed_memory

CONFIGS = {'dense': 'dense_resnet20_cifar10', 'gated': 'bas_resnet20_cifar10'}
# one epoch in which batch shaping and one in which the L0 loss acts
EPOCHS = {'gated, batch shaping': 50, 'gated, L0': 200}


def build_step(
    config: str, epoch: int, images: int, device: str
) -> Callable[[], object]:
    """One ``train_step`` of a config's model on one random batch."""
    cfg = read_config(config)
    model, optim = build_training(cfg, epoch, device)
    data = random_batch(cfg, images)
    return lambda: model.train_step(data, optim)


def report_gates(images: int, repeats: int, device: str) -> None:
    """Print the time of a gated step as a ratio to the dense one."""
    load = os.getloadavg()[0]
    steps = {'dense': build_step(CONFIGS['dense'], 0, images, device)}
    for name, epoch in EPOCHS.items():
        steps[name] = build_step(CONFIGS['gated'], epoch, images, device)
    seconds = interleave(steps, repeats, device)
    print(
        f'training step on {device}, ResNet-20, {images} images of 32 x 32, '
        f'{torch.get_num_threads()} threads, load before the run {load:.1f}'
    )
    for name, values in seconds.items():
        print(
            f'  {name:21s} {1e3 * median(values.wall):7.1f} ms '
            f'({1e3 * min(values.wall):.1f} to {1e3 * max(values.wall):.1f}, '
            f'{repeats} repeats), {values.ratio(seconds["dense"]):.3f} x '
            f'dense; CPU {1e3 * median(values.cpu):7.1f} ms, '
            f'{values.ratio(seconds["dense"], "cpu"):.3f} x dense'
        )


def main() -> None:
    """Both reports."""
    parser = text_parser(__doc__)
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--default-allocator', action='store_true')
    args = parser.parse_args()
    if args.device == 'cpu' and not args.default_allocator:
        keep_freed_memory()
    logging.disable(logging.INFO)  # mmengine lists every gate parameter
    report_gates(args.images, args.repeats, args.device)
    sizes = Sizes(args.images, 50_000, 64, 200, 2)
    report_coupling(sizes, 11, args.device, args.default_allocator)


if __name__ == '__main__':
    main()
