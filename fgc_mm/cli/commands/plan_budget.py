"""MACs of an FTWT model before it is trained, from one pass of the dense one.

    fgc-mm plan-budget CONFIG CHECKPOINT --budget 0.45

CONFIG has a MaskPredictionLoss, CHECKPOINT is of the dense network that its
training starts from. Prints, per ratio r, the MACs to expect if every gate
hits its target, and the r that meets the budget.
"""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from fgc_mm.cli.arguments import config_parser, read_config
from fgc_mm.deploy.loading import build_model, mismatch
from fgc_mm.engine.dataloader_defaults import set_dataloader_defaults
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.budget import (
    check_budget,
    expected_cost,
    ratio_for_budget,
)
from fgc_mm.functional.channel_groups import sum_groups
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.mask_targets import channel_scores
from fgc_mm.losses.mask_prediction import TARGETS
from fgc_mm.reliability.atomic_file import write_atomically

# Per target: the ratios to print; the ones that cost least and most come first
# and last.
RATIOS = {
    'mass': [1e-6, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0],
    'uniform': [1 - 1e-6, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
}


def main() -> None:
    """Run the dense network once, and print."""
    args = parse_args()
    cfg = read_config(args)
    target, place = target_of(cfg), loss_place(cfg)
    if args.budget is not None:
        check_budget(args.budget)
    elif args.out is not None:
        raise FGCError(
            f'--out {args.out} has nothing to hold without a budget; add '
            '--budget, such as --budget 0.45.'
        )
    scores, table = look(cfg, args.checkpoint, args.images)
    budget = args.budget
    ratios, chosen = RATIOS[target], None
    if budget is not None:
        ends = ratios[0], ratios[-1]
        chosen = ratio_for_budget(scores, table, TARGETS[target], budget, ends)
        ratios = sorted({*ratios, round(chosen, 4)})
    show(ratios, chosen, target, scores, table)
    if chosen is None:
        return
    option = f'model.gate_losses.{place}.ratio={chosen:.4f}'
    print(
        f'for a budget of {budget:g}: ratio={chosen:.4f}, as in '
        f'--cfg-options {option}'
    )
    if args.out is not None:
        found = dict(budget=budget, ratio=chosen, options=[option])
        write_atomically(json.dumps(found, indent=1).encode(), args.out)


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = config_parser(__doc__, 'config file with a MaskPredictionLoss')
    parser.add_argument('checkpoint', help='checkpoint of the dense network')
    parser.add_argument(
        '--budget', type=float, help='share of the dense MACs to spend'
    )
    parser.add_argument(
        '--images', type=int, default=1024, help='training images to look at'
    )
    parser.add_argument(
        '--out', type=Path, metavar='JSON',
        help='also write the ratio that meets the budget to this file',
    )  # fmt: skip
    return parser.parse_args()


def loss_place(cfg: Config) -> int:
    """Where the MaskPredictionLoss stands among the gate losses."""
    losses = cfg.get('model', {}).get('gate_losses', [])
    for place, loss in enumerate(losses):
        if loss['type'].endswith('MaskPredictionLoss'):
            return place
    raise FGCError(
        f'{cfg.filename} has no MaskPredictionLoss, whose ratio could be '
        'planned; give a config of FTWT (for densities: get_macs.py '
        '--keep-ratio).'
    )


def target_of(cfg: Config) -> str:
    """The kind of target that the config trains towards."""
    target = cfg.model.gate_losses[loss_place(cfg)].get('target', 'mass')
    check_choice(f'target={target!r} of MaskPredictionLoss', target, TARGETS)
    return target


def look(
    cfg: Config, checkpoint: str, images: int
) -> tuple[list[Tensor], MACsTable]:
    """Scores of every decision on the dense network, and the gated one's
    MACs."""
    if images < 1:
        raise FGCError(f'--images {images} shows nothing; give at least 1.')
    gated = deepcopy(cfg)
    cfg.model.backbone.gate = dict(type='fgc_mm.OpenGate')
    cfg.model.gate_losses = []
    model = build_model(cfg)
    load_dense(model.backbone.backbone, checkpoint, cfg.filename)
    set_dataloader_defaults(cfg, ['train_dataloader'])
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = loader.batch_size or 1
    parts: list[list[Tensor]] = []
    for data, _ in zip(loader, track(range(-(-images // batch)), 'looking')):
        inputs = model.data_preprocessor(data)['inputs']
        with torch.no_grad():
            _, records = model.backbone.forward_gated(
                inputs, keep_activation=True
            )
        parts.append([channel_scores(r.activation) for r in records])
    table = build_model(gated).macs_table(tuple(inputs.shape[1:]))
    scores = [torch.cat(site)[:images] for site in zip(*parts)]
    return [*map(sum_groups, scores, table.group_sizes)], table


def load_dense(network: nn.Module, checkpoint: str, config: str) -> None:
    """Load the backbone of a plain classifier; its head is not looked at.

    Raises:
        FGCError: The file is no checkpoint, or of another backbone.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    state = {
        key.removeprefix('backbone.'): value
        for key, value in content.get('state_dict', content).items()
        if key.startswith('backbone.')
    }
    wrong = mismatch(network, state)
    if wrong:
        raise FGCError(
            f'{checkpoint} is not of the dense network that {config} gates: '
            f'{wrong}; give a checkpoint of its plain twin.'
        )
    network.load_state_dict(state)


def show(
    ratios: list[float],
    chosen: float | None,
    target: str,
    scores: list[Tensor],
    table: MACsTable,
) -> None:
    """Print the expected MACs of every ratio."""
    result = Table(
        title=f'MACs to expect of the {target} target '
        f'({len(scores[0])} images, {len(scores)} sites)'
    )
    for name in ('ratio', 'MACs', 'of dense', 'pruned'):
        result.add_column(name, justify='right')
    for ratio in sorted(ratios):
        share = expected_cost(scores, table, TARGETS[target], ratio)
        meets = chosen is not None and ratio == round(chosen, 4)
        result.add_row(
            f'{ratio:.4g}', f'{share * table.base():,.0f}', f'{share:.1%}',
            f'{1 - share:.1%}', style='bold' if meets else '',
        )  # fmt: skip
    Console().print(result)
