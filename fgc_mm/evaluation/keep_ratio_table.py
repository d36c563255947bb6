"""Keep ratios of every site over a data set, as a table."""

from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table


class SiteRow(NamedTuple):
    """How often the channels of a site are open over a data set.

    Attributes:
        name: Of the site.
        channels: Their number.
        keep_ratio: Fraction of open channels, over images and channels.
        never_open: Fraction of channels that are open for no image.
        always_open: Fraction of channels that are open for every image.
    """

    name: str
    channels: int
    keep_ratio: float
    never_open: float
    always_open: float


def site_rows(
    names: tuple[str, ...], channels: tuple[int, ...], firing: np.ndarray
) -> list[SiteRow]:
    """One row per site.

    Args:
        names: Names of the sites.
        channels: Their numbers of channels.
        firing: (sum of channels,) fraction of images that open a channel.
    """
    parts = np.split(firing, np.cumsum(channels)[:-1])
    return [
        SiteRow(
            name,
            count,
            float(rate.mean()),
            float((rate == 0).mean()),
            float((rate == 1).mean()),
        )
        for name, count, rate in zip(names, channels, parts)
    ]


def render_sites(rows: list[SiteRow]) -> str:
    """The rows as a table for the log."""
    table = Table(title='open channels of the sites')
    table.add_column('site')
    for column in ('channels', 'keep ratio', 'never open', 'always open'):
        table.add_column(column, justify='right')
    for name, channels, *ratios in rows:
        table.add_row(name, str(channels), *(f'{x:.3f}' for x in ratios))
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
