"""Converts a checkpoint of the published FGC code: weights, gates, banks."""

import argparse
import re
from typing import Any

from torch import Tensor

from fgc_mm.engine.memory_bank_hook import STATE
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import save_atomically
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

# (published name, name in fgc_mm); 1x1 convs of gates become linear layers
RULES = (
    (r'linear\.(.+)', r'head.fc.\1'),
    (
        r'(layer\d+)\.(\d+)\.gate\.mlp\.fc1\.(.+)',
        r'backbone.gates.\1-\2-conv1.squeeze.\3',
    ),
    (
        r'(layer\d+)\.(\d+)\.gate\.mlp\.bn\.(.+)',
        r'backbone.gates.\1-\2-conv1.norm.\3',
    ),
    (
        r'(layer\d+)\.(\d+)\.gate\.mlp\.fc2\.(.+)',
        r'backbone.gates.\1-\2-conv1.expand.\3',
    ),
    (r'(conv1|bn1)\.(.+)', r'backbone.backbone.\1.\2'),
    (
        r'(layer\d+\.\d+)\.(conv1|bn1|conv2|bn2)\.(.+)',
        r'backbone.backbone.\1.\2.\3',
    ),
)
BANK = re.compile(r'(layer\d+\.\d+)\.gate\.(gate|feat)_mb\.memory')
BANK_KINDS = {'gate': 'gate', 'feat': 'feature'}


def convert_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published ``state_dict`` (without the banks).

    Raises:
        FGCError: The published networks do not have such a key.
    """
    converted = {}
    for key, value in state.items():
        if BANK.fullmatch(key):
            continue
        name = _rename(key)
        is_gate = '.squeeze.' in name or '.expand.' in name
        if is_gate and value.dim() == 4:
            value = value.flatten(1)
        converted[name] = value
    return converted


def convert_banks(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The banks of the coupled blocks, as ``FGCMemoryBankHook`` saves them."""
    banks: dict[str, dict[str, Any]] = {}
    for key, rows in state.items():
        match = BANK.fullmatch(key)
        if match:
            site = banks.setdefault(f'{match[1]}.conv1', {})
            site[BANK_KINDS[match[2]]] = dict(rows=rows.float())
    for name, pair in banks.items():
        if len(pair) < 2:
            raise FGCError(
                f'{name} has only a {next(iter(pair))} bank, but coupling '
                'needs a feature and a gate bank; the checkpoint is '
                'damaged: download it again.'
            )
    return banks


def convert(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Convert a published checkpoint."""
    if 'state_dict' not in checkpoint:
        raise FGCError(
            f'the file contains {sorted(checkpoint)[:4]}, but no state_dict; '
            'give a checkpoint of the published FGC code.'
        )
    state = {
        key.removeprefix('module.'): value
        for key, value in checkpoint['state_dict'].items()
    }
    meta = {
        key: float(checkpoint[key])
        for key in ('epoch', 'best_acc1')
        if key in checkpoint
    }
    result = dict(meta=dict(published=meta), state_dict=convert_weights(state))
    banks = convert_banks(state)
    if banks:
        result[STATE] = {'coupling': banks}
    return result


def _rename(key: str) -> str:
    for pattern, ours in RULES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    raise FGCError(
        f'{key!r} is not a key of the published FGC networks; give an '
        'unchanged checkpoint of the published code.'
    )


def main(args: argparse.Namespace) -> None:
    """Convert one file."""
    converted = convert(read_checkpoint(args.source))
    save_atomically(converted, args.target)
    sites = converted.get(STATE, {}).get('coupling', {})
    print(
        f'{args.target}: {len(converted["state_dict"])} tensors, memory '
        f'banks of {", ".join(sites) or "no site"}'
    )
