"""The CPU: its name, for reports, and its cores."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """Name of the first core, with its family and model.

    The name alone is ambiguous on virtual machines: several generations
    share one.
    """
    try:
        first = Path('/proc/cpuinfo').read_text().split('\n\n')[0]
    except OSError:
        first = ''
    lines = [line.partition(':') for line in first.splitlines()]
    core = {key.strip(): value.strip() for key, _, value in lines}
    parts = [
        core.get('model name') or platform.processor() or platform.machine()
    ]
    for key in ('cpu family', 'model'):
        if key in core:
            parts.append(f'{key.removeprefix("cpu ")} {core[key]}')
    return ', '.join(parts)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
