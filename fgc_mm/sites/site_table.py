"""Sites as a table of text."""

from collections.abc import Sequence

from torch import nn

from fgc_mm.sites.site import GateSite

HEAD = 'site', 'layer', 'channels', 'MACs', 'masked at the input of'
ALIGNED = '<<>><'  # numbers to the right


def site_table(sites: Sequence[GateSite], network: nn.Module) -> str:
    """A line per site of a network, below a line of titles."""
    rows = [HEAD, *(_row(site, network) for site in sites)]
    columns = [
        [f'{cell:{side}{max(map(len, column))}}' for cell in column]
        for side, column in zip(ALIGNED, zip(*rows), strict=True)
    ]
    return '\n'.join('  '.join(line).rstrip() for line in zip(*columns))


def _row(site: GateSite, network: nn.Module) -> tuple[str, ...]:
    return (
        site.name,
        type(network.get_submodule(site.producer)).__name__,
        f'{site.channels}{site.groups_text}',
        f'{site.macs_share:.1%}',
        ', '.join(site.readers),
    )
