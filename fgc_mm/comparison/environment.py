"""Versions and hardware, which the process of a training writes itself."""

import json
import os
import platform
import sys
from pathlib import Path

import mmengine
import torch

from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.runtime.cpu import first_core

FILE = 'environment.json'
UNKNOWN = {'CPU': 'unknown'}


def environment() -> dict[str, str]:
    """Versions and hardware of this process."""
    found = {
        'python': platform.python_version(),
        'torch': str(torch.__version__),
        'mmengine': str(mmengine.__version__),
        'mmpretrain': str(sys.modules['mmpretrain'].__version__),
        'CPU': f'{cpu_name()}, {os.cpu_count()} cores',
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


def cpu_name() -> str:
    """Name, family and model, since clouds shorten names."""
    core = first_core()
    name = core.get('model name') or platform.processor()
    if {'model name', 'cpu family', 'model'} <= core.keys():
        name += f' (family {core["cpu family"]}, model {core["model"]})'
    return name or platform.machine()
