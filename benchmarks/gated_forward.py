"""What masking adds to a forward pass in evaluation.

    python benchmarks/gated_forward.py

Compares the gated backbone (masking only: every channel is still computed)
with the same backbone without gates, interleaved in one process; the gates are
only initialised. Also prints the time of the search for sites.
"""

import time
from statistics import median

import torch
from coupling import interleave
from mmpretrain.models import backbones

from fgc_mm.cli.arguments import text_parser
from fgc_mm.models import CifarResNet, GatedBackbone

GATE = dict(type='fgc_mm.BinaryConcreteGate')
# (name, backbone, image size, batch sizes)
NETWORKS = [
    ('ResNet-20 (CIFAR)', lambda: CifarResNet(20), 32, (1, 128)),
    ('ResNet-18', lambda: backbones.ResNet(18), 224, (1, 16)),
    ('ResNet-50', lambda: backbones.ResNet(50), 224, (1, 16)),
    ('MobileNetV2', lambda: backbones.MobileNetV2(), 224, (1, 16)),
    ('DeiT-tiny', lambda: backbones.VisionTransformer('deit-t'), 224, (1, 16)),
]


def report(
    device: str, name: str, build: object, size: int, batches: tuple
) -> None:
    """Print one network's lines."""
    torch.manual_seed(0)
    started = time.perf_counter()
    gated = GatedBackbone(build(), GATE).eval().to(device)
    searched = time.perf_counter() - started
    print(f'{name}: {len(gated.sites)} sites, built in {searched:.2f} s')
    for images in batches:
        x = torch.randn(images, 3, size, size, device=device)
        runs = dict(
            dense=lambda x=x: gated.backbone(x), gated=lambda x=x: gated(x)
        )
        with torch.inference_mode():
            seconds = interleave(runs, 15, device)
        dense, gated_one = seconds['dense'], seconds['gated']
        print(
            f'  {images:3d} images of {size} x {size}: dense '
            f'{1e3 * median(dense.wall):7.1f} ms, gated '
            f'{1e3 * median(gated_one.wall):7.1f} ms, '
            f'{gated_one.ratio(dense):.3f} x'
        )


def main() -> None:
    """All networks."""
    parser = text_parser(__doc__)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f'evaluation on {args.device}, {args.threads} threads, medians of 15 '
        'pairs'
    )
    for network in NETWORKS:
        report(args.device, *network)


if __name__ == '__main__':
    main()
