"""Plans the MACs of an FTWT model with one pass of the dense network."""

import argparse
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from fgc_mm.cli.given_config import read_config
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.dataloader_defaults import set_dataloader_defaults
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.channel_groups import sum_groups
from fgc_mm.functional.ftwt_budget import (
    check_budget,
    expected_cost,
    ratio_for_budget,
)
from fgc_mm.functional.macs import MACsTable
from fgc_mm.losses.mask_prediction import TARGETS
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.type_name import type_name

# for each target the ratios to print, in the order of their MACs
RATIOS = {
    'mass': [1e-6, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0],
    'uniform': [1 - 1e-6, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
}


def main(args: argparse.Namespace) -> None:
    """Run the dense network once, and print."""
    cfg = read_config(args)
    index = loss_index(cfg)
    target = cfg.model.gate_losses[index].get('target', 'mass')
    check_choice(f'target={target!r} of MaskPredictionLoss', target, TARGETS)
    if args.budget is not None:
        check_budget(args.budget)
    elif args.out is not None:
        raise FGCError(
            f'--out {args.out} needs a budget; add --budget, such as '
            '--budget 0.45.'
        )
    scores, table = decision_scores(cfg, args.checkpoint, args.images)
    budget = args.budget
    ratios, chosen = RATIOS[target], None
    if budget is not None:
        ends = ratios[0], ratios[-1]
        chosen = ratio_for_budget(scores, table, TARGETS[target], budget, ends)
        ratios = sorted({*ratios, chosen})
    show(ratios, chosen, target, scores, table)
    if chosen is None:
        return
    # all digits: the MACs of a uniform target change in steps of the ratio
    option = f'model.gate_losses.{index}.ratio={chosen!r}'
    print(
        f'for a budget of {budget:g}: ratio={chosen!r}, as in '
        f'--cfg-options {option}'
    )
    if args.out is not None:
        found = dict(budget=budget, ratio=chosen, options=[option])
        write_atomically(json.dumps(found, indent=1).encode(), args.out)


def loss_index(cfg: Config) -> int:
    """Index of the MaskPredictionLoss in the list of gate losses."""
    losses = cfg.get('model', {}).get('gate_losses', [])
    for index, loss in enumerate(losses):
        if type_name(loss) == 'MaskPredictionLoss':
            return index
    raise FGCError(
        f'{cfg.filename} has no MaskPredictionLoss, but its ratio is to be '
        'planned; give a config of FTWT (for densities use fgc-mm macs '
        '--keep-ratio).'
    )


def decision_scores(
    cfg: Config, checkpoint: str, images: int
) -> tuple[list[Tensor], MACsTable]:
    """Scores of every decision on the dense network, and the MACs table."""
    if images < 1:
        raise FGCError(f'--images is {images}; give at least 1.')
    gated = deepcopy(cfg)
    cfg.model.backbone.gate = dict(type='fgc_mm.OpenGate')
    cfg.model.gate_losses = []
    model = build_model(cfg)
    load_dense(model.backbone.backbone, checkpoint, cfg.filename)
    set_dataloader_defaults(cfg, ['train_dataloader'])
    cfg.train_dataloader.update(
        num_workers=0, persistent_workers=False, pin_memory=False
    )
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = loader.batch_size or 1
    parts: list[list[Tensor]] = []
    batches = track(range(-(-images // batch)), 'computing scores')
    for data, _ in zip(loader, batches):
        inputs = model.data_preprocessor(data)['inputs']
        with torch.no_grad():
            _, records = model.backbone.forward_gated(
                inputs, keep_activation=True
            )
        parts.append([r.peaks for r in records])
    table = build_model(gated).macs_table(tuple(inputs.shape[1:]))
    scores = [torch.cat(site)[:images] for site in zip(*parts)]
    return [*map(sum_groups, scores, table.group_sizes)], table


def load_dense(network: nn.Module, checkpoint: str, config: str) -> None:
    """Load the backbone of a dense classifier; its head is ignored.

    Raises:
        FGCError: The file is not a checkpoint, or of another backbone.
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
            f'{wrong}; give a checkpoint of the dense config.'
        )
    network.load_state_dict(state)


def mismatch(model: nn.Module, state: Mapping[str, Any]) -> str:
    """How a state dict and a model differ; empty if they match."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    other = [
        key
        for key in own
        if key in state and getattr(state[key], 'shape', ()) != own[key].shape
    ]
    wrong = [*missing, *other, *unknown]
    if not wrong:
        return ''
    return (
        f'{len(missing)} weights of this model are missing, {len(unknown)} '
        f'are unknown to it and {len(other)} have another shape '
        f'({wrong[0]}, ...)'
    )


def show(
    ratios: list[float],
    chosen: float | None,
    target: str,
    scores: list[Tensor],
    table: MACsTable,
) -> None:
    """Print the expected MACs of every ratio."""
    result = Table(
        title=f'expected MACs for the {target} target '
        f'({len(scores[0])} images, {len(scores)} sites)'
    )
    for name in ('ratio', 'MACs', 'of dense', 'pruned'):
        result.add_column(name, justify='right')
    for ratio in sorted(ratios):
        cost = expected_cost(scores, table, TARGETS[target], ratio)
        meets = ratio == chosen
        result.add_row(
            f'{ratio:.4g}', f'{cost * table.base():,.0f}', f'{cost:.1%}',
            f'{1 - cost:.1%}', style='bold' if meets else '',
        )  # fmt: skip
    Console().print(result)
