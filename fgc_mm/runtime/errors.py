"""What can go wrong with the library and with files."""

from fgc_mm.errors import FGCError


class LibraryError(FGCError):
    """The library cannot be loaded, and cannot be compiled here."""


class RuntimeFileError(FGCError):
    """A file is no model that the library runs: torn, foreign, or newer."""
