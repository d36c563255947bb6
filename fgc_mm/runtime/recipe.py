"""What is compiled, with which options.

One library holds several builds of the fast code: the same sources for
several instruction sets. It chooses by the CPU that it runs on, so one
library serves all nodes of a cluster.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent / 'csrc'
NAME = 'libfgc.so'
FLAGS = (
    '-std=c++17',
    '-O3',
    # inner loops that begin amid a line are up to a tenth slower on a core
    # that another thread shares
    '-falign-loops=64',
    '-falign-functions=64',
    '-ffp-contract=fast',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fPIC',
    '-fvisibility=hidden',  # two libraries in one process share nothing
    '-pthread',
)
LINK = ('-shared', '-pthread')
FAST = ('kernel.cpp',)  # sources that are compiled for every build
AVX512 = ('avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx2', 'fma')


class Build(NamedTuple):
    """One way to compile the fast code.

    Attributes:
        name: As ``fgc_builds`` has it.
        needs: Instruction sets, by the names of the compiler's options.
        lanes: float32 numbers of a vector.
    """

    name: str
    needs: tuple[str, ...] = ()
    lanes: int = 8

    @property
    def options(self) -> list[str]:
        """For the compiler."""
        name = self.name.replace('-', '_')
        sets = [f'-m{need}' for need in self.needs]
        macros = f'-DFGC_BUILD={name}', f'-DFGC_LANES={self.lanes}'
        return [*macros, *sets]


# Without further options a compiler makes code that every CPU of the
# architecture runs: SSE2 on x86-64, Neon on aarch64.
BASELINE = Build('baseline', lanes=4)
X86 = (
    Build('avx', ('avx',)),
    Build('avx2', ('avx2', 'fma')),
    # Some CPUs multiply 512 bits at once, others in two halves, or at a lower
    # clock; both builds have the 32 registers of AVX-512.
    Build('avx512', AVX512, lanes=16),
    Build('avx512-256', AVX512),
)


def builds() -> tuple[Build, ...]:
    """Those of this machine's architecture."""
    x86 = platform.machine().lower() in ('x86_64', 'amd64')
    return (BASELINE, *X86) if x86 else (BASELINE,)


def compilations(folder: Path) -> list[tuple[str, str, list[str]]]:
    """Object file, its source, and the compiler's options, for each.

    Args:
        folder: Of the sources.
    """
    found = []
    for source in sorted(path.name for path in folder.glob('*.cpp')):
        stem = source.removesuffix('.cpp')
        if source not in FAST:
            found.append((f'{stem}.o', source, ['-c', *FLAGS]))
            continue
        for build in builds():
            options = ['-c', *FLAGS, *build.options]
            found.append((f'{stem}.{build.name}.o', source, options))
    return found


def linking(objects: Sequence[Path]) -> list[str]:
    """The compiler's arguments that make a library of object files."""
    # a linker drops the libraries that come before what needs them
    return [*map(str, objects), *LINK]
