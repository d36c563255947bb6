"""The compiled kernel: built on first use, the fastest that the CPU runs."""

from __future__ import annotations

import functools
import importlib.util
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from fgc_mm.deploy.dynamic.builds import Build, instruction_sets, runnable
from fgc_mm.deploy.dynamic.compiling import (
    NAME,
    CannotCompile,
    built,
    discard,
)
from fgc_mm.errors import FGCError

BACKENDS = ('auto', 'kernel', 'torch')
# (channels in and out, kernel, size): the shapes of a measurement
TIMED = ((64, 3, 28), (128, 1, 28), (128, 3, 7))
REPEATS = 5


def choose_kernel(backend: str) -> ModuleType | None:
    """The kernel for a backend, or ``None`` for plain torch.

    Args:
        backend: ``'kernel'``, ``'torch'``, or ``'auto'``: the kernel if
            it can be built, else torch with a warning.

    Raises:
        FGCError: Another backend, or a kernel that cannot be built.
    """
    if backend not in BACKENDS:
        raise FGCError(
            f'backend={backend!r} is none of {", ".join(BACKENDS)}; '
            "'auto' takes the compiled kernel where it can be built."
        )
    if backend == 'torch':
        return None
    kernel, problem = load_kernel()
    if kernel is None and backend == 'kernel':
        raise FGCError(
            "backend='kernel' needs the compiled kernel, but there is none: "
            f"{problem}, or use backend='torch'."
        )
    if kernel is None:
        _warn_once(problem)
    return kernel


@functools.cache
def load_kernel() -> tuple[ModuleType | None, str]:
    """The kernel, or ``None`` and why there is none; tried once.

    Where the CPU can run several builds all are loaded, and the one that
    computes some convs fastest is kept.
    """
    builds = runnable(instruction_sets())
    try:
        with ThreadPoolExecutor(len(builds)) as pool:
            libraries = list(pool.map(built, builds))
        kernels = list(map(_loaded, builds, libraries))
        return fastest(kernels), ''
    except CannotCompile as error:
        return None, str(error)
    # whatever it is: plain torch computes the same
    except Exception as error:
        line = (str(error).strip().splitlines() or [''])[0]
        return None, (
            f'it cannot be built or loaded ({type(error).__name__}: {line}); '
            'mend that'
        )


def build_name() -> str:
    """Of the kernel in use; ``'none'`` if there is none."""
    kernel = load_kernel()[0]
    return 'none' if kernel is None else kernel.build


@functools.cache
def _warn_once(problem: str) -> None:
    warnings.warn(
        'dynamic execution goes on in plain torch, which is slower, since '
        f'there is no compiled kernel: {problem}.',
        stacklevel=4,
    )


def _loaded(build: Build, library: Path) -> ModuleType:
    """A library as a module; compiled once more if it cannot be loaded."""
    try:
        kernel = _import(library)
    except (ImportError, OSError):
        discard(library)  # of another C++ library, perhaps
        kernel = _import(built(build))
    kernel.build = build.name
    return kernel


def _import(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fastest(kernels: Sequence[ModuleType]) -> ModuleType:
    """The build that takes least time for some convs, in milliseconds.

    Args:
        kernels: In turns each runs all convs, and its least times count.
    """
    if len(kernels) == 1:
        return kernels[0]
    total = [0.0] * len(kernels)
    for channels, size, pixels in TIMED:
        weight = torch.ones(channels, channels, size, size)
        image = torch.ones(1, channels, pixels, pixels)
        convs = [_conv(kernel, weight) for kernel in kernels]
        taken = [
            [_seconds(conv, image) for conv in convs] for _ in range(REPEATS)
        ]
        for number, seconds in enumerate(zip(*taken)):
            total[number] += min(seconds)
    return kernels[total.index(min(total))]


def _conv(kernel: ModuleType, weight: Tensor) -> object:
    pad = weight.shape[-1] // 2
    geometry = [1, 1, pad, pad, 1, 1]
    bias = weight.new_zeros(len(weight))
    infinite = float('inf')
    return kernel.Conv(
        weight, bias, geometry, False, -infinite, infinite, False
    )


def _seconds(conv: object, image: Tensor) -> float:
    started = time.perf_counter()
    conv.run(image, None, None)
    return time.perf_counter() - started
