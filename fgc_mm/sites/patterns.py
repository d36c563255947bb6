"""Selecting sites by shell patterns on their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fgc_mm.errors import FGCError


def match_names(
    patterns: Sequence[str], names: Sequence[str], what: str
) -> list[str]:
    """The names that match any pattern, in the order of ``names``.

    Args:
        patterns: Shell patterns, e.g. ``'layer3.*.conv1'``.
        names: All names.
        what: What the patterns select, for the error message.

    Raises:
        FGCError: A pattern matches no name, or the list is empty.
    """
    listed = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not listed or not patterns:
        raise FGCError(
            f'{what} is {patterns!r}, which is not a list of patterns; write '
            f'[{patterns or "*"!r}].'
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise FGCError(
                f'{what} {pattern!r} matches no gate site; choose among '
                f'{", ".join(names) or "none: this backbone has no site"}.'
            )
    return [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
