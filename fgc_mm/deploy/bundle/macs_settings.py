"""A MACs table as plain settings for the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgc_mm.functional.macs import MACsTable, SitePositions

Runs = tuple[tuple[int, int], ...]


def macs_settings(table: MACsTable) -> dict[str, Any]:
    """The ``macs`` entry of the file's JSON, see docs/runtime.md.

    Args:
        table: Of the network, at the size of its images.
    """
    layers = table.counted()
    positions: dict[Runs, int] = {}
    return dict(
        dense=table.base(),
        fixed=sum(layer.dense for layer in layers if not layer.sites),
        layers=[
            [
                layer.unit,
                layer.in_channels,
                layer.out_channels,
                layer.groups,
                _sites(layer.in_sites, positions),
                _sites(layer.out_sites, positions),
            ]
            for layer in layers
            if layer.sites
        ],
        positions=list(positions),
    )


def _sites(
    sites: Sequence[SitePositions], positions: dict[Runs, int]
) -> list[tuple[int, int | None]]:
    """Each site with the index of its positions; layers may share an index."""
    return [
        (
            site,
            None
            if channels is None
            else positions.setdefault(_runs(channels), len(positions)),
        )
        for site, channels in sites
    ]


def _runs(channels: Sequence[int]) -> Runs:
    """``[first, count]`` for runs of consecutive channels, or of -1."""
    runs: list[tuple[int, int]] = []
    for position in map(int, channels):
        first, count = runs[-1] if runs else (position, 0)
        if position == (first + count if first >= 0 else -1):
            runs[-1:] = [(first, count + 1)]
        else:
            runs.append((position, 1))
    return tuple(runs)
