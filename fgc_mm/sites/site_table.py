"""Sites as a table of text."""

from collections.abc import Sequence

from torch import nn

from fgc_mm.sites.site import GateSite

HEAD = 'site', 'layer', 'channels', 'MACs', 'masked at the input of'
NUMBERS = frozenset({2, 3})  # columns that are aligned to the right


def site_table(sites: Sequence[GateSite], network: nn.Module) -> str:
    """A line per site, below a line of titles.

    Args:
        sites: The sites, in the order of the lines.
        network: The network, for the class of each producer.
    """
    rows = [HEAD, *(_row(site, network) for site in sites)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(_line(row, widths) for row in rows)


def _row(site: GateSite, network: nn.Module) -> tuple[str, ...]:
    layer = network.get_submodule(site.producer)
    return (
        site.name,
        type(layer).__name__,
        site.channels_text,
        f'{site.macs_share:.1%}',
        ', '.join(site.readers),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f'{cell:>{width}}' if column in NUMBERS else f'{cell:<{width}}'
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return '  '.join(cells).rstrip()
