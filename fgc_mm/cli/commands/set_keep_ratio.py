"""A checkpoint whose gates open a given share of their channels.

    fgc-mm export keep-ratio CONFIG [CHECKPOINT] \\
        --keep-ratio 0.44 --out FILE

For timing without training: it shifts the last bias of every gate until, on
images of the config's test set, every site opens that share of its channels on
average. Masks vary from image to image, and every channel has a firing rate of
its own between 0 and 1. What the gates choose is as good as their training: a
checkpoint of a trained model keeps the order in which its gates prefer images,
a network without one (no CHECKPOINT) has random weights, and no accuracy.
"""

from __future__ import annotations

import argparse
import logging

import torch

from fgc_mm.cli.arguments import config_parser, read_config
from fgc_mm.deploy import build_trained, gated_backbone, images_of
from fgc_mm.deploy.keep_ratio import set_keep_ratio
from fgc_mm.deploy.loading import build_model
from fgc_mm.reliability.atomic_file import save_atomically


def main() -> None:
    """Set, and write."""
    args = parse_args()
    cfg = read_config(args)
    torch.manual_seed(args.seed)
    if args.checkpoint is None:
        model = build_model(cfg)
        gated_backbone(model)
        logging.disable(logging.INFO)  # a line for every parameter
        model.init_weights()
        logging.disable(logging.NOTSET)
    else:
        model = build_trained(cfg, args.checkpoint)
    images = torch.cat(list(images_of(cfg, model, args.images)))
    fresh = args.checkpoint is None
    firing = set_keep_ratio(model, images, args.keep_ratio, fresh)
    save_atomically(dict(meta={}, state_dict=model.state_dict()), args.out)
    for stats in firing:
        rate = stats.rate
        print(
            f'{stats.site}: keep ratio {rate.mean():.3f}, channels fire on '
            f'{rate.min():.1%} to {rate.max():.1%} of {len(images)} images'
        )
    print(f'written: {args.out}')


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = config_parser(__doc__)
    parser.add_argument(
        'checkpoint', nargs='?', help='its weights; random without'
    )
    parser.add_argument('--keep-ratio', type=float, required=True)
    parser.add_argument('--out', required=True, help='checkpoint to write')
    parser.add_argument(
        '--images', type=int, default=200, help='of the test set (200)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of random weights'
    )
    return parser.parse_args()
