"""Running the C++ compiler, with readable errors."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgc_mm.runtime.errors import LibraryError

if TYPE_CHECKING:
    import subprocess

COMPILE_SECONDS = 900
REMEDY = 'install g++ (or set CXX to a compiler of C++17)'


def compiler() -> list[str]:
    """The command of CXX, which may have arguments (``ccache g++``).

    Raises:
        LibraryError: CXX is not a command.
    """
    named = os.environ.get('CXX', '')
    try:
        return shlex.split(named) or ['g++']
    except ValueError as error:
        raise LibraryError(
            f'CXX={named!r} is not a command ({error}); {REMEDY}.'
        ) from error


def run(command: Sequence[str], output: Path) -> None:
    """Run the compiler.

    Args:
        command: The command, without the file that it writes.
        output: The file that it writes.

    Raises:
        LibraryError: It cannot be run, fails, is killed, takes longer than
            15 minutes, or does not write the file.
    """
    import subprocess  # slow to import, and rarely needed

    try:
        done = subprocess.run(
            [*command, '-o', str(output)],
            capture_output=True,
            encoding='utf-8',
            errors='replace',  # messages may have another encoding
            timeout=COMPILE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LibraryError(
            f'{command[0]} had not finished after {COMPILE_SECONDS} s; '
            'compile once on an idle machine: the cache is reused.'
        ) from error
    except OSError as error:
        raise LibraryError(
            f'the compiler {command[0]} cannot be run ({error.strerror}); '
            f'{REMEDY}.'
        ) from error
    if done.returncode:
        raise LibraryError(_failure(done))
    if not output.exists():
        raise LibraryError(
            f'{command[0]} ended without an error but did not write '
            f'{output.name}, so it is not a compiler; {REMEDY}.'
        )


def _failure(done: subprocess.CompletedProcess) -> str:
    output = done.stderr
    if done.returncode < 0 or 'Killed' in output or 'out of memory' in output:
        return (
            f'the compiler {done.args[0]} was killed, probably since memory '
            'ran out (it needs 1 GB); free some, or compile once on another '
            'machine: the cache is reused.'
        )
    lines = [line for line in output.splitlines() if 'error' in line]
    lines = lines or output.splitlines() or [f'exit code {done.returncode}']
    return f'{done.args[0]} failed ({lines[0].strip()}); {REMEDY}.'
