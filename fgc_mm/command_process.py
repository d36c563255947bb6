"""Command lines that run the package's commands in other processes."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fgc_mm.config_files import NAME, configs_folder

# by its path, so that the process imports this package
MAIN = Path(__file__).resolve().parent / 'cli' / '__main__.py'


def command_of(name: str, *arguments: object) -> list[str]:
    """The command line of a command; its name is as in ``fgc-mm --help``."""
    words = [*name.split(), *map(str, arguments)]
    return [sys.executable, '-u', str(MAIN), *words]


def as_typed(command: Sequence[str]) -> str:
    """A command line of :func:`command_of`, as a user would type it.

    Configs of the package are given by their names, without a folder.
    """
    prefix = f'{configs_folder()}/'
    words = [
        f'{NAME}/{word.removeprefix(prefix)}'
        if word.startswith(prefix)
        else word
        for word in command[3:]
    ]
    return shlex.join(['fgc-mm', *words])
