"""Writes a checkpoint whose gates have a given keep ratio.

    fgc-mm export keep-ratio CONFIG [CHECKPOINT] \\
        --keep-ratio 0.44 --out FILE

For timing without training: it shifts the last bias of every gate so that, on
images of the config's test set, every site opens that fraction of its channels
on average. Masks vary from image to image, and each channel is open for a
different fraction of the images. The weights are those of CHECKPOINT; without
CHECKPOINT they are random, and the accuracy is that of random guessing.
"""

from __future__ import annotations

import argparse
import io
import logging

import torch

from fgc_mm.deploy import build_trained, gated_backbone, images_of
from fgc_mm.deploy.keep_ratio import set_keep_ratio
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import ConfigOptions, override
from fgc_mm.reliability.atomic_file import write_atomically


def main() -> None:
    """Set, and write."""
    args = parse_args()
    cfg = load_config(args.config)
    override(cfg, args.cfg_options)
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
    untrained = args.checkpoint is None
    firing = set_keep_ratio(model, images, args.keep_ratio, untrained)
    with io.BytesIO() as stream:
        torch.save(dict(meta={}, state_dict=model.state_dict()), stream)
        write_atomically(stream.getvalue(), args.out)
    for stats in firing:
        rate = stats.rate
        print(
            f'{stats.site}: keep ratio {rate.mean():.3f}, channels fire on '
            f'{rate.min():.1%} to {rate.max():.1%} of {len(images)} images'
        )
    print(f'written: {args.out}')


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config of a gated model')
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
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    return parser.parse_args()
