"""Command lines that run the package's commands in other processes."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fgc_mm.config_files import NAME, configs_folder

# by its path: the process imports this package, not one in its own folder
MAIN = Path(__file__).resolve().parent / 'cli' / '__main__.py'


def command_of(name: str, *arguments: object) -> list[str]:
    """The command line of a command; its name is as in ``fgc-mm --help``."""
    words = [*name.split(), *map(str, arguments)]
    return [sys.executable, '-u', str(MAIN), *words]


def as_typed(command: Sequence[str]) -> str:
    """What a user types for a command line of :func:`command_of`.

    The folder of the package's configs is left out: the names are enough.
    """
    prefix = f'{configs_folder()}/'
    words = [
        f'{NAME}/{word.removeprefix(prefix)}'
        if word.startswith(prefix)
        else word
        for word in command[3:]
    ]
    return shlex.join(['fgc-mm', *words])
