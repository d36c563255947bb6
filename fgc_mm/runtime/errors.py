"""Errors of the library and of files."""

from fgc_mm.errors import FGCError


class LibraryError(FGCError):
    """The library cannot be loaded, and cannot be compiled here."""


class RuntimeFileError(FGCError):
    """A file is not a model for this library: truncated, foreign, or newer."""


def error_line(error: Exception) -> str:
    """Type and first line of an error of code that is not ours."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'
