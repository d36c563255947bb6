"""The states of all random generators, as tensors and numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

States = dict[str, Any]


def random_states(cuda: bool = True) -> States:
    """The states of Python's, numpy's and torch's generators.

    Only tensors and numbers, so that a checkpoint that holds them is still
    read as data.

    Args:
        cuda: Those of the GPUs too, if there are any.
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
    """Puts the generators where :func:`random_states` found them."""
    numbers = tuple(states['python'].tolist())
    random.setstate(
        (states['python_version'], numbers, states['python_normal'])
    )
    keys = states['numpy'].cpu().numpy().astype(np.uint32)
    np.random.set_state(('MT19937', keys, *states['numpy_rest']))
    torch.set_rng_state(states['torch'].cpu())
    # a checkpoint may have more devices than this machine, or none
    for device, state in enumerate(states.get('cuda', ())):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(state.cpu(), device)


def mixed_seed(*numbers: int) -> int:
    """One seed of 32 bits from several numbers; neighbours differ wholly."""
    positive = [abs(number) for number in numbers]
    return int(np.random.SeedSequence(positive).generate_state(1)[0])


def seed_cpu(seed: int) -> None:
    """Seeds what a data pipeline draws from; GPUs are left alone."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The CPU's generators seeded within, and outside as if nothing were."""
    before = random_states(cuda=False)
    seed_cpu(seed)
    try:
        yield
    finally:
        restore_random_states(before)
