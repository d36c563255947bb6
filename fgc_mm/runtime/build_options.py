"""Compiler options and object files of the library.

One library has several builds of the performance-critical code: the same
sources for several instruction sets. It selects one by the CPU that it runs
on, so one library works on all nodes of a cluster.
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
    # loops that do not start at a cache line are up to a tenth slower on a
    # core that two threads share
    '-falign-loops=64',
    '-falign-functions=64',
    '-ffp-contract=fast',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fPIC',
    '-fvisibility=hidden',  # no symbols in common with other libraries
    '-pthread',
)
LINK = ('-shared', '-pthread', '-s')  # without symbols: 3 % smaller
PER_BUILD = ('kernel.cpp',)  # sources that are compiled for every build
AVX512 = ('avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx2', 'fma')


class Build(NamedTuple):
    """One build of the performance-critical code.

    Attributes:
        name: As in ``fgc_builds``.
        needs: Instruction sets, named like the compiler's options.
        lanes: float32 per vector.
    """

    name: str
    needs: tuple[str, ...] = ()
    lanes: int = 8

    @property
    def options(self) -> list[str]:
        """Compiler options."""
        name = self.name.replace('-', '_')
        sets = [f'-m{need}' for need in self.needs]
        macros = f'-DFGC_BUILD={name}', f'-DFGC_LANES={self.lanes}'
        return [*macros, *sets]


# Without options a compiler generates code that runs on every CPU of the
# architecture: SSE2 on x86-64, Neon on aarch64.
BASELINE = Build('baseline', lanes=4)
X86 = (
    Build('avx', ('avx',)),
    Build('avx2', ('avx2', 'fma')),
    # Some CPUs execute 512 bits at once, others in two halves, or at a lower
    # clock; both builds use the 32 registers of AVX-512.
    Build('avx512', AVX512, lanes=16),
    Build('avx512-256', AVX512),
)


# the bfloat16 convs, used together with any of the other builds
_BFLOAT16 = (*AVX512, 'avx512bf16', 'avx512vbmi2')
BFLOAT16 = {
    'bfloat16.cpp': Build('bfloat16', _BFLOAT16, lanes=16),
    'amx.cpp': Build('amx', (*_BFLOAT16, 'amx-tile', 'amx-bf16'), lanes=16),
}


def builds() -> tuple[Build, ...]:
    """The builds for this machine's architecture."""
    return (BASELINE, *X86) if _is_x86() else (BASELINE,)


def _is_x86() -> bool:
    return platform.machine().lower() in ('x86_64', 'amd64')


def compilations(folder: Path) -> list[tuple[str, str, list[str]]]:
    """(object file, source, compiler options) for a folder of sources."""
    found: list[tuple[str, str, list[str]]] = []
    for path in sorted(folder.glob('*.cpp')):
        if path.name in PER_BUILD:
            found += [
                (f'{path.stem}.{build.name}.o', path.name, build.options)
                for build in builds()
            ]
        elif path.name not in BFLOAT16:
            found.append((f'{path.stem}.o', path.name, []))
        elif _is_x86():
            options = BFLOAT16[path.name].options
            found.append((f'{path.stem}.o', path.name, options))
    return [(o, source, ['-c', *FLAGS, *more]) for o, source, more in found]


def linking(objects: Sequence[Path]) -> list[str]:
    """Compiler arguments that link object files to a library."""
    # libraries must come after the objects that need them
    return [*map(str, objects), *LINK]
