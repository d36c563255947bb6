"""What the process's allocator does with freed blocks."""

import subprocess
import sys

import pytest

from fgc_mm.cli import freed_memory

# page faults of ten blocks of 64 MiB, one after the other, before and after
FAULTS = """
import resource, torch
from fgc_mm.cli.freed_memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2 ** 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
assert keep_freed_memory()
faults(), faults()
print(faults())
"""


@pytest.mark.skipif(
    freed_memory.platform.libc_ver()[0] != 'glibc', reason='only for glibc'
)
def test_freed_blocks_are_used_again():
    command = [sys.executable, '-c', FAULTS]
    out = subprocess.check_output(command, text=True)
    before, after = map(int, out.split())
    assert after < before / 10


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(freed_memory.platform, 'libc_ver', lambda: ('', ''))
    assert not freed_memory.keep_freed_memory()
