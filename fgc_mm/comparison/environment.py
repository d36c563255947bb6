"""Versions and hardware, which the process of a training writes itself."""

import json
import os
import platform
import sys
from functools import cache
from pathlib import Path

import mmengine
import torch

from fgc_mm.reliability.atomic_file import write_atomically

FILE = 'environment.json'
UNKNOWN = {'CPU': 'unknown'}


def environment() -> dict[str, str]:
    """Versions and hardware of this process."""
    found = {
        'python': platform.python_version(),
        'torch': str(torch.__version__),
        'mmengine': str(mmengine.__version__),
        'mmpretrain': str(sys.modules['mmpretrain'].__version__),
        'CPU': f'{_cpu()}, {os.cpu_count()} cores',
    }
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found['GPU'] = f'{count} x {torch.cuda.get_device_name(0)}'
    return found


def write_environment(folder: str | Path) -> None:
    """Writes that of this process into a folder."""
    content = json.dumps(environment(), indent=1)
    write_atomically(content.encode(), Path(folder, FILE))


def read_environment(folder: Path) -> dict[str, str]:
    """That of the process which has logged in a folder; else UNKNOWN."""
    file = folder / FILE
    return json.loads(file.read_text('utf-8')) if file.is_file() else UNKNOWN


@cache
def _cpu() -> str:
    file = Path('/proc/cpuinfo')
    name = cpu_name(file.read_text('utf-8')) if file.is_file() else ''
    return name or platform.processor() or platform.machine()


def cpu_name(info: str) -> str:
    """Name, family and model (clouds shorten names) from /proc/cpuinfo.

    Empty where it has no name, as on ARM.
    """
    lines = [line.partition(':') for line in info.splitlines()]
    found = {key.strip(): value.strip() for key, _, value in lines}
    name = found.get('model name', '')
    if name and {'cpu family', 'model'} <= found.keys():
        name += f' (family {found["cpu family"]}, model {found["model"]})'
    return name
