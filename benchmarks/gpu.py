"""Measures results, coupling, steps and an epoch on a GPU, in some minutes.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --device cpu --small     (a trial without a GPU)

Every part prints when it ends; if one fails, the others still run:

- results: neighbours, log-sum-exps and their gradients, compared with float64;
- coupling: time and memory of a step, ours and the published implementation;
- steps: dense, BAS and FGC steps of ResNet-20 including the hooks, in float32
  and bfloat16, channels last, compiled, and as CUDA graphs, all interleaved;
- epoch: an epoch of FGC on 50,000 images that are held on the device.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from coupling import (
    WAYS,
    Sizes,
    couple,
    interleave,
    make_block,
    measure_peak,
    wait_for,
)
from mmengine.dataset import default_collate
from mmpretrain.structures import DataSample
from step_operations import STEPS, Run
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from training import random_batch

from fgc_mm.cli.arguments import text_parser
from fgc_mm.datasets import InMemoryImages
from fgc_mm.functional import bank_logsumexp, nearest_neighbors
from fgc_mm.reliability.seeded_batches import SeededBatches

BF16 = {'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.dtype': 'bfloat16'}  # fmt: skip
GRAPHS = dict(mode='reduce-overhead')
# a step of STEPS, the options of its config, channels last, torch.compile's
VARIANTS = {
    'dense float32': ('dense', {}, False, None),
    'BAS float32': ('BAS', {}, False, None),
    'FGC float32': ('FGC', {}, False, None),
    'dense bf16 channels last': ('dense', BF16, True, None),
    'dense bf16 channels last compiled': ('dense', BF16, True, {}),
    'dense bf16 channels last CUDA graphs': ('dense', BF16, True, GRAPHS),
    'FGC bf16': ('FGC', BF16, False, None),
    'FGC bf16 channels last': ('FGC', BF16, True, None),
    'FGC bf16 channels last compiled': ('FGC', BF16, True, {}),
    'FGC bf16 channels last CUDA graphs': ('FGC', BF16, True, GRAPHS),
}
WARM_UP = 3  # a CUDA graph is recorded in the second step


def milliseconds(
    steps: dict[str, Callable[[], object]], device: str, repeats: int
) -> dict[str, float]:
    """Medians of interleaved steps, after one each that is not counted."""
    taken = interleave(steps, repeats, device)
    return {name: 1e3 * median(one.wall) for name, one in taken.items()}


def distance(one: Tensor, other: Tensor) -> float:
    """Relative, of all elements together."""
    return float(((one.double() - other).norm() / other.norm()).detach())


def check_results(device: str, small: bool) -> dict[str, list]:
    """Distances to float64: log-sum-exp, gradient; wrong neighbours."""
    found = {}
    for channels in (3, 16, 64, 100, 512):
        for images, rows in ((37, 5001), (256, 9000 if small else 200_003)):
            torch.manual_seed(0)
            queries = torch.randn(images, channels, device=device)
            queries.requires_grad_()
            bank = normalize(torch.randn(rows, channels, device=device), dim=1)
            scores = queries.double() @ bank.double().T
            pairs = (bank_logsumexp(queries, bank, 14.0),
                     (14 * scores).logsumexp(1))  # fmt: skip
            grads = [torch.autograd.grad(x.sum(), queries)[0] for x in pairs]
            near = nearest_neighbors(queries.detach(), bank, 50)
            least = scores.topk(50).values[:, -1:]
            wrong = scores.gather(1, near) < least - 1e-5 * least.abs()
            row = [distance(*pairs), distance(*grads), int(wrong.sum())]
            good = row[0] < 1e-5 and row[1] < 1e-3 and not row[2]
            print('good' if good else 'BAD', channels, images, rows, row)
            found[f'{channels} {images} {rows}'] = row
    return found


def time_coupling(device: str, small: bool) -> dict[str, dict]:
    """Milliseconds and MiB of both ways, at CIFAR's and ImageNet's size."""
    sizes = [Sizes(64, 5000, 16, 20, 1)] if small else [
        Sizes(256, 50_000, 64, 200, 1), Sizes(256, 1_281_167, 512, 200, 1)
    ]  # fmt: skip
    found = {}
    for size in sizes:
        blocks = [make_block(size, 0, device)]
        steps = {way: partial(couple, blocks, size, way) for way in WAYS}
        row = milliseconds(steps, device, 10)
        for way in WAYS:
            row[f'{way} MiB'] = measure_peak(size, way, device)
        row['ratio'] = row['ours'] / row['published']
        print(size, row)
        found[str(size)] = row
    return found


def build(variant: str, device: str, images: int, rows: int) -> Run:
    """A variant's model, optimizer and hooks."""
    step, options, last, compiled = VARIANTS[variant]
    if torch.device(device).type == 'cpu':
        options = {}  # most CPUs are slow in bfloat16
    run = Run(*STEPS[step], images, rows, device, options)
    if last:
        run.model.to(memory_format=torch.channels_last)
    if compiled is not None:
        backbone = run.model.backbone
        getattr(backbone, 'backbone', backbone).compile(**compiled)
    return run


def time_steps(device: str, small: bool) -> dict[str, float]:
    """Milliseconds of a step of every variant."""
    steps, (images, rows) = {}, (16, 2000) if small else (256, 50_000)
    for name, (_, options, _, compiled) in VARIANTS.items():
        if small and (options or compiled is not None):
            continue
        try:
            run = build(name, device, images, rows)
            data = random_batch(run.cfg, images)
            step = partial(run.step, lambda _: nullcontext(), data)
            for _ in range(WARM_UP):
                step()
            steps[name] = step
        except Exception as error:  # the other variants still run
            print(f'{name}: {type(error).__name__}: {error!s:.300}')
    found = milliseconds(steps, device, 3 if small else 30)
    for name, ms in found.items():
        print(f'{name:36s}{ms:9.2f} ms', flush=True)
    return found


class RandomImages(Dataset):
    """Random images of 32 x 32 pixels."""

    def __init__(self, count: int) -> None:
        shape = count, 3, 32, 32
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As ``PackInputs`` makes it."""
        sample = DataSample(metainfo=dict(sample_idx=index))
        sample.set_gt_label(index % 10)
        return dict(inputs=self.images[index], data_samples=sample)


def time_epoch(device: str, small: bool) -> dict[str, float]:
    """Seconds of an epoch of FGC, the data loader included."""
    images, rows = (16, 320) if small else (256, 50_000)
    held = InMemoryImages(RandomImages(rows), 4, 0.5, device)
    batches = BatchSampler(RandomSampler(held), images, drop_last=True)
    loader = DataLoader(
        held,
        batch_sampler=SeededBatches(batches, 0, 0),
        collate_fn=default_collate,
    )
    run = build('FGC bf16 channels last', device, images, rows)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for data in loader:
            run.step(lambda _: nullcontext(), data)
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    print('seconds of an epoch:', [round(x, 2) for x in seconds])
    return dict(first=seconds[0], later=min(seconds[1:]))


PARTS = {
    'results': check_results,
    'coupling': time_coupling,
    'steps': time_steps,
    'epoch': time_epoch,
}


def main() -> None:
    """Run the requested parts."""
    parser = text_parser(__doc__)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--small', action='store_true', help='a trial')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--out', type=Path, help='JSON of all numbers')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    cuda = torch.device(args.device).type == 'cuda'
    name = torch.cuda.get_device_name() if cuda else 'cpu'
    found: dict[str, Any] = dict(torch=torch.__version__, device=name)
    print(found)
    for part in args.parts:
        try:
            found[part] = PARTS[part](args.device, args.small)
        except Exception:  # the other parts still run
            traceback.print_exc(file=sys.stdout)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
