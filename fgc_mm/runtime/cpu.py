"""The name of the CPU, for reports."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """Of the first core, with its family and model.

    A virtual machine's name alone says too little: several generations have
    one.
    """
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
