"""Prints a line to the standard error output."""

import sys


def print_error_line(line: str) -> None:
    """Prints a line in one write.

    print() writes the end of the line separately if Python does not buffer
    (PYTHONUNBUFFERED, usual in containers), and a line of another process
    could come between.
    """
    print(f'{line}\n', end='', file=sys.stderr, flush=True)
