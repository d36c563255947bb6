"""Builds of the kernel: one source, several vector widths.

A build names the instruction sets that it needs, so a library serves every
CPU that has them, whichever node of a cluster compiled it.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

AVX512 = ('avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx2', 'fma')


@dataclass(frozen=True)
class Build:
    """One way to compile the kernel.

    Attributes:
        name: As reports have it.
        level: Of the instruction sets; a CPU runs builds of its highest.
        needs: Instruction sets, by the names of /proc/cpuinfo, which are
            the compiler's too.
        lanes: float32 numbers of a vector.
    """

    name: str
    level: int
    needs: tuple[str, ...]
    lanes: int

    @property
    def flags(self) -> list[str]:
        """For the compiler."""
        sets = [f'-m{name}' for name in self.needs]
        return [*sets, f'-DFGC_LANES={self.lanes}']


# Without further options a compiler makes code that every CPU of the
# architecture runs: SSE2 on x86-64, Neon on aarch64.
BUILDS = (
    Build('baseline', 0, (), 4),
    Build('avx', 1, ('avx',), 8),
    Build('avx2', 2, ('avx2', 'fma'), 8),
    # Some CPUs multiply 512 bits at once, others in two halves, or at a lower
    # clock; both builds have the 32 registers of AVX-512.
    Build('avx512', 3, AVX512, 16),
    Build('avx512-256', 3, AVX512, 8),
)


def runnable(instruction_sets: Collection[str]) -> list[Build]:
    """The builds of the highest level that a CPU can run.

    Args:
        instruction_sets: Of the CPU, by the names of /proc/cpuinfo.
    """
    able = [b for b in BUILDS if set(b.needs) <= set(instruction_sets)]
    highest = max(build.level for build in able)
    return [build for build in able if build.level == highest]


@functools.cache
def instruction_sets() -> frozenset[str]:
    """Of the first core; none where the system does not say."""
    if platform.machine() != 'x86_64':
        return frozenset()
    return frozenset(_first_core().get('flags', '').split())


def cpu_name() -> str:
    """Of the first core: a virtual machine's name alone says too little."""
    core = _first_core()
    name = core.get('model name') or platform.processor()
    parts = [name or platform.machine()]
    for key in ('cpu family', 'model'):
        if key in core:
            parts.append(f'{key.removeprefix("cpu ")} {core[key]}')
    return ', '.join(parts)


def _first_core() -> dict[str, str]:
    """What /proc/cpuinfo says; nothing where there is none."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return {}
    lines = [x.partition(':') for x in text.split('\n\n')[0].splitlines()]
    return {key.strip(): value.strip() for key, _, value in lines}
