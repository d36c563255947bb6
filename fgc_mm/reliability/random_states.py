"""Reads and restores the states of all random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import set_random_seed

States = dict[str, Any]


def random_states(cuda: bool = True) -> States:
    """The states of Python's, numpy's and torch's generators.

    They are tensors and numbers, so a checkpoint that contains them can be
    read without running code. With ``cuda`` those of the GPUs are included.
    """
    version, numbers, python_normal = random.getstate()
    numpy_state: Any = np.random.get_state()
    _, keys, position, has_normal, normal = numpy_state
    states = dict(
        python=torch.tensor(numbers),
        python_version=version,
        python_normal=python_normal,
        numpy=torch.from_numpy(keys.astype(np.int64)),
        numpy_rest=(int(position), int(has_normal), float(normal)),
        torch=torch.get_rng_state(),
    )
    if cuda and torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: States) -> None:
    """Restores the states that :func:`random_states` has returned."""
    numbers = tuple(states['python'].tolist())
    random.setstate(
        (states['python_version'], numbers, states['python_normal'])
    )
    keys = states['numpy'].cpu().numpy().astype(np.uint32)
    np.random.set_state(('MT19937', keys, *states['numpy_rest']))
    torch.set_rng_state(states['torch'].cpu())
    # a checkpoint may contain more devices than this machine has, or none
    for device, state in enumerate(states.get('cuda', ())):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(state.cpu(), device)


def mixed_seed(*numbers: int) -> int:
    """A 32-bit seed from several numbers, unrelated for similar ones."""
    positive = [abs(number) for number in numbers]
    return int(np.random.SeedSequence(positive).generate_state(1)[0])


def seed_rank(seed: int, iteration: int) -> None:
    """Seed all generators of this rank, each rank with another number."""
    set_random_seed(mixed_seed(seed, iteration, get_rank()))


@contextmanager
def same_random_states(cuda: bool = True) -> Iterator[None]:
    """Restores the states after a block."""
    before = random_states(cuda)
    try:
        yield
    finally:
        restore_random_states(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU's generators in a block, and restores them after it."""
    with same_random_states(cuda=False):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # not those of GPUs
        yield
