"""Mutated files never make the library reach foreign memory."""

from __future__ import annotations

import pytest

from tests.runtime import fuzz


@pytest.mark.skipif(
    fuzz.sanitizer() is None, reason='the sanitizer is not installed'
)
@pytest.mark.parametrize('vectors', sorted({
    fuzz.available_vectors()[0], fuzz.available_vectors()[-1]
}))  # fmt: skip
def test_mutated_files(vectors: str) -> None:
    library = fuzz.sanitized_library(vectors)
    done = fuzz.run_inside(library, mutations=400, seed=0)
    assert done.returncode == 0, done.stderr[:3000]
    assert int(done.stdout.split()[0]) > 20
