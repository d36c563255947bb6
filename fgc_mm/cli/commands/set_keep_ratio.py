"""Writes a checkpoint whose gates have a given keep ratio."""

import argparse
import logging

import torch

from fgc_mm.cli.given_config import read_config
from fgc_mm.deploy import build_trained, gated_backbone, images_of
from fgc_mm.deploy.keep_ratio import set_keep_ratio
from fgc_mm.deploy.loading import build_model
from fgc_mm.reliability.atomic_file import check_writable, save_atomically


def main(args: argparse.Namespace) -> None:
    """Set, and write."""
    check_writable(args.out)
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
    untrained = args.checkpoint is None
    firing = set_keep_ratio(model, images, args.keep_ratio, untrained)
    save_atomically(dict(meta={}, state_dict=model.state_dict()), args.out)
    for stats in firing:
        rate = stats.rate
        print(
            f'{stats.site}: keep ratio {rate.mean():.3f}, channels fire on '
            f'{rate.min():.1%} to {rate.max():.1%} of {len(images)} images'
        )
    print(f'written: {args.out}')
