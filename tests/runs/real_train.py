"""Runs of tools/train.py in processes of their own, to be killed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
COUPLING = 'model.gate_losses.2'
OPTIONS = {
    'randomness.seed': 3,
    'model.backbone.backbone.base_channels': 4,
    'model.head.in_channels': 16,
    f'{COUPLING}.num_neighbors': 5,
    f'{COUPLING}.warmup_epochs': 1,
    f'{COUPLING}.loss_weight': 0.003,
    'train_dataloader.batch_size': 8,
    'train_dataloader.dataset.indices': 80,
    'val_dataloader.dataset.indices': 60,
    'train_cfg.max_epochs': 4,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
}


def start(folder, *arguments, before=(), **options):
    """The process of a run of 4 epochs of 10 steps."""
    pairs = {
        **OPTIONS,
        **{k.replace('__', '.'): v for k, v in options.items()},
    }
    command = [
        *before, sys.executable, '-u', ROOT / 'tools' / 'train.py',
        ROOT / 'configs' / 'fgc_resnet20_digits.py', '--work-dir', folder,
        *arguments, '--cfg-options', *(f'{k}={v}' for k, v in pairs.items()),
    ]  # fmt: skip
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    """The rest of its output, and its exit code."""
    try:
        text, _ = process.communicate(timeout=240)
    finally:
        process.kill()  # if it hangs
    return text, process.returncode


def run(folder, *arguments, code=0, **options):
    """A run to its end."""
    text, found = end(start(folder, *arguments, **options))
    assert found == code, text
    assert 'Traceback' not in text, text
    return text


def wait_for(process, epoch, step):
    """Reads on until a step is logged."""
    for line in process.stdout:
        if re.search(rf'Epoch\(train\) +\[{epoch}\]\[ *{step}/', line):
            return
    raise AssertionError('the run has ended')


def result(folder):
    """All that training has made, as one flat dict of tensors."""
    saved = torch.load(folder / 'epoch_4.pth', weights_only=False)
    found = {'iter': torch.tensor(saved['meta']['iter'])}
    for part in ('state_dict', 'optimizer', 'fgc_memory_banks'):
        flatten(saved[part], part, found)
    return found


def flatten(node, name, found):
    """Collects the tensors below a node."""
    if isinstance(node, torch.Tensor):
        found[name] = node
    items = node.items() if isinstance(node, dict) else ()
    for key, value in items:
        flatten(value, f'{name}.{key}', found)


def differences(one, other):
    """The names under which two results differ."""
    assert len(one) > 100 and any('momentum_buffer' in key for key in one)
    keys = one.keys() | other.keys()
    return [
        key for key in sorted(keys)
        if key not in one or key not in other
        or not torch.equal(one[key], other[key])
    ]  # fmt: skip
