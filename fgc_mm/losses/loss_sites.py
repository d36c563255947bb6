"""Selecting the gated sites that a loss acts on."""

from collections.abc import Sequence

from fgc_mm.errors import FGCError
from fgc_mm.sites import match_names


def select_loss_sites(
    wanted: int | Sequence[str] | None, names: Sequence[str], loss: str
) -> list[str]:
    """Names of the sites that a loss acts on.

    Args:
        wanted: The last n, shell patterns, or ``None`` for all.
        names: Names of the gated sites, in order.
        loss: Name of the loss, for messages.

    Raises:
        FGCError: A pattern without a match, or a number of sites that do not
            exist.
    """
    if wanted is None:
        return list(names)
    if not isinstance(wanted, int):
        return match_names(wanted, names, 'the coupled site')
    if not 0 < wanted <= len(names):
        raise FGCError(
            f'sites={wanted} of {loss} must be between 1 and {len(names)}, '
            'the number of gate sites.'
        )
    return list(names[-wanted:])
