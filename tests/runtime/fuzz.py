"""Mutates valid files, loads them and, if they are accepted, runs them.

    python tests/runtime/fuzz.py --mutations 100000 --seed 1

The library is compiled with the address and undefined behaviour sanitizers,
which end the process where memory is reached that is not the model's. It has
one build: the widest that this CPU can run, or the one that --vectors names.
It prints how many files were accepted.
"""

from __future__ import annotations

import argparse
import os
import platform
import struct
import subprocess
import sys
import types
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy

from fgc_mm.runtime.build_options import BFLOAT16

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / 'fgc_mm' / 'runtime' / 'csrc'
SANITIZERS = ('-fsanitize=address,undefined', '-fno-sanitize-recover=all')
LIBRARIES = Path(numpy.__file__).parents[1]
INSIDE = 'FGC_TEST_LIBRARY'  # set in the process that has the sanitizers
_AVX512 = [f'-m{name}' for name in BFLOAT16['bfloat16.cpp'].needs]
VECTORS = {  # compiler options, from narrow to wide
    'baseline': [],
    'avx2': ['-mavx2', '-mfma'],
    'avx512': [*_AVX512, '-DFGC_LANES=16'],
    'avx512-256': [*_AVX512, '-DFGC_LANES=8'],
}
SPECIAL = (
    -1, 0, 1, 2, 3, 4, 7, 8, 63, 64, 255, 256, 257, 65536, 1 << 20, 1 << 31,
    (1 << 31) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63), -2,
)  # fmt: skip


def sanitizer() -> str | None:
    """What a process loads first, or ``None`` if it is not there.

    The sanitizer must find the exceptions of C++ when it starts.
    """
    found = []
    for name in ('libasan.so', 'libstdc++.so'):
        try:
            line = subprocess.run(
                ['g++', f'-print-file-name={name}'],
                capture_output=True, text=True, check=True,
            ).stdout.strip()  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return None
        if not Path(line).is_absolute():
            return None
        found.append(line)
    return ' '.join(found)


def sanitized_library(vectors: str | None = None) -> Path:
    """One build of the library, with the sanitizers; kept in the cache.

    Args:
        vectors: A key of ``VECTORS``; by default the last that this CPU has.
    """
    from fgc_mm.runtime import cache
    from fgc_mm.runtime.building import sources_key

    vectors = vectors or available_vectors()[-1]
    folder = cache.cache_folders()[0] / f'sanitized-{vectors}-{sources_key()}'
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / 'libfgc.so'
    with cache.file_lock(folder / 'lock'):
        if not cache.is_intact(library):
            part = folder / 'part.so'
            _compile(part, VECTORS[vectors])
            cache.store_library(part, library)
    return library


def _compile(library: Path, options: Sequence[str]) -> None:
    subprocess.run(
        [
            'g++', '-std=c++17', '-O0', '-g1', *SANITIZERS, *options,
            '-fPIC', '-pthread', '-DFGC_ONE_BUILD', '-shared',
            *map(str, sorted(SOURCES.glob('*.cpp'))), '-o', str(library),
        ],
        check=True,
    )  # fmt: skip


def available_vectors() -> list[str]:
    """The keys of ``VECTORS`` that this CPU can run."""
    flags: set[str] = set()
    if platform.machine() == 'x86_64':
        try:
            text = Path('/proc/cpuinfo').read_text()
            flags.update(text.replace('avx512_', 'avx512').split())
        except OSError:
            pass
    return [
        name
        for name, options in VECTORS.items()
        if all(
            option.removeprefix('-m') in flags
            for option in options
            if option.startswith('-m')
        )
    ]


def run_inside(
    library: Path, mutations: int, seed: int
) -> subprocess.CompletedProcess:
    """Another process that has the sanitizer's library from its start."""
    environment = dict(
        os.environ,
        LD_PRELOAD=str(sanitizer()),
        ASAN_OPTIONS='detect_leaks=0:allocator_may_return_null=1',
        PYTHONPATH=os.pathsep.join([str(ROOT), str(LIBRARIES)]),
        OMP_NUM_THREADS='1',
        **{INSIDE: str(library)},
    )
    return subprocess.run(
        # a program of its own: the sanitizer must be loaded first
        [os.path.realpath('/proc/self/exe'), __file__,
         '--mutations', str(mutations),
         '--seed', str(seed)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip


def fuzz(mutations: int, seed: int) -> str:
    """How many of the mutated files were accepted, and ran."""
    import random

    # a dependency installs a top-level package of that name
    ours = types.ModuleType('tests')
    ours.__path__ = [str(ROOT / 'tests')]
    sys.modules['tests'] = ours
    from fgc_mm.runtime import format as f
    from tests.runtime import test_bfloat16
    from tests.runtime.programs import Failure, Loaded

    rng = random.Random(seed)
    originals = list(examples())
    # with the code for CPUs that do not multiply it
    for number in range(8):
        test_bfloat16.test_integers_are_exact(number)
        originals.append(f.encode(test_bfloat16.integer_conv(number)[0]))
    test_bfloat16.test_a_kernel_of_long_reach()
    # of a library with a single build, which has it on every CPU
    builds = test_bfloat16.build_names()
    for data in originals:
        for build in builds:
            attempt(Loaded(data, build))
    accepted = 0
    for _ in range(mutations):
        data = mutated(rng.choice(originals), rng)
        try:
            loaded = Loaded(data, rng.choice(builds))
        except Failure as failure:
            assert failure.code in (1, 3), failure
            continue
        accepted += 1
        attempt(loaded)
    return f'{accepted} of {mutations} files were accepted'


def attempt(loaded: object) -> None:
    import numpy as np

    def call(*_: object) -> None:
        pass

    shape = loaded.shape(-1)
    if np.prod(shape) > 1 << 20:
        return
    sizes = [np.prod(loaded.shape(k)) for k in range(loaded.outputs)]
    if sum(sizes) < 1 << 22:
        loaded.run(np.ones((1, *shape), np.float32), 2, True, call)


def mutated(data: bytes, rng: object) -> bytes:
    """A file with a few other words of its program, and a right check sum."""
    words = struct.unpack_from('<Q', data, 16)[0]
    other = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = 64 + 8 * rng.randrange(words)
        (old,) = struct.unpack_from('<q', other, at)
        new = rng.choice(
            (
                rng.choice(SPECIAL), old + rng.randint(-3, 3),
                old * rng.choice((-1, 2, 3)), old ^ (1 << rng.randrange(64)),
                old + rng.choice((-64, 64, 1024)),
            )
        )  # fmt: skip
        new = (new + (1 << 63)) % (1 << 64) - (1 << 63)
        struct.pack_into('<q', other, at, new)
    struct.pack_into('<Q', other, 40, zlib.crc32(other[64:]))
    return bytes(other)


def examples() -> Iterator[bytes]:
    """Files that have every kind of op, small so that ends are near."""
    from fgc_mm.runtime import format as f
    from tests.runtime import test_kernel as ops
    from tests.runtime import test_kernel_runs as runs
    from tests.runtime.programs import Maker

    made: list[bytes] = []

    def keep(program: f.Program, *_: object, **__: object) -> list:
        made.append(f.encode(program))
        return [[__import__('numpy').zeros(1)]] * 2

    saved, ops.check = ops.check, keep
    try:
        for seed in (1, 2, 3):
            ops.test_conv(seed)
            ops.test_large_conv(seed)
            ops.test_conv_whose_padding_exceeds_its_reach(seed)
            ops.test_depthwise_and_grouped_conv(seed)
            for far in (0, 350, 400, 450):  # a little beside the memory
                ops.test_depthwise_conv_of_stride_2(seed + far, far)
            ops.test_conv_on_one_pixel(seed)
            ops.test_unary_and_affine(seed)
            ops.test_binary(seed)
            ops.test_pool_and_mean(seed)
            ops.test_norm(seed)
            ops.test_softmax(seed)
            ops.test_matmul(seed)
            ops.test_move(seed)
            ops.test_resize(1, 0, seed)
            ops.test_attention(seed)
            ops.test_join(seed)
        ops.test_top_k(3, 0)
        ops.test_a_conv_far_beside_its_map(None)
    finally:
        ops.check = saved
    m = Maker((2, 3, 4))
    y = m.value((2, 3, 4), pad=1)
    m.op(f.Call(0, [0], [y]))
    made.append(f.encode(m.finished(y)))
    yield from made
    yield runs.gated()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--mutations', type=int, default=20000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--library', type=Path, help='compiled before')
    parser.add_argument('--vectors', choices=VECTORS, help='the build')
    arguments = parser.parse_args()
    if INSIDE in os.environ:
        print(fuzz(arguments.mutations, arguments.seed))
        return
    if sanitizer() is None:
        raise SystemExit('there is no libasan.so: install g++')
    library = arguments.library or sanitized_library(arguments.vectors)
    done = run_inside(library, arguments.mutations, arguments.seed)
    print(done.stdout + done.stderr[:3000])
    raise SystemExit(done.returncode)


if __name__ == '__main__':
    main()
