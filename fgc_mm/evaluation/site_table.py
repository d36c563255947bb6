"""What every site did over a data set, as a table."""

from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class SiteRow:
    """What one site did over a data set.

    Attributes:
        name: The site.
        channels: Its channels.
        keep_ratio: Share of channels open, over images and channels.
        never_open: Share of channels that no image opened.
        always_open: Share of channels that every image opened.
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
        names: The sites.
        channels: Their channels.
        firing: (sum of channels,) share of images that open a channel.
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
    table = Table(title='gate sites')
    table.add_column('site')
    for column in ('channels', 'keep ratio', 'never open', 'always open'):
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(
            row.name,
            str(row.channels),
            f'{row.keep_ratio:.3f}',
            f'{row.never_open:.3f}',
            f'{row.always_open:.3f}',
        )
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
