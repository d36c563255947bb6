"""Result of a site search, and its text form for checkpoints."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import nn

from fgc_mm.sites.layer_channels import (
    CONV_OR_LINEAR,
    is_depthwise,
    layer_widths,
)
from fgc_mm.sites.site import GateSite, SiteLayer


@dataclass(frozen=True)
class FoundSites:
    """The sites of one network.

    Attributes:
        fingerprint: Fingerprint of the network and the search options
            (:mod:`fgc_mm.sites.network_fingerprint`); ``None`` for a network
            without one, whose result cannot be reused.
        image_shape: (C, H, W) of the image used in the search.
        sites: All of them, in the order of the network's modules.
    """

    fingerprint: str | None
    image_shape: tuple[int, int, int]
    sites: tuple[GateSite, ...]

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(vars(self) | dict(sites=[*map(_row, self.sites)]))

    @classmethod
    def from_text(cls, text: str) -> 'FoundSites':
        """From JSON.

        Raises:
            ValueError: The text has another format.
        """
        try:
            row = json.loads(text)
            sites = tuple(map(_site, row['sites']))
            channels, height, width = row['image_shape']
            return cls(row['fingerprint'], (channels, height, width), sites)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'no sites: {error}') from error

    def matches(self, backbone: nn.Module) -> bool:
        """Whether a network has these layers with these widths."""
        layers = dict(backbone.named_modules())
        return all(
            isinstance(layers.get(member.path), CONV_OR_LINEAR)
            and _matches(member, layers[member.path], number, site.channels)
            for site in self.sites
            for number, members in enumerate((site.consumers, site.outputs))
            for member in members
        ) and all(
            site.name in [member.path for member in site.outputs]
            and (site.branch_end in layers or site.consumers)
            for site in self.sites
        )


def _matches(
    member: SiteLayer, layer: nn.Module, number: int, channels: int
) -> bool:
    width = layer_widths(layer)[1 if is_depthwise(layer) else number]
    if member.positions is None:
        return width == channels
    known = all(-1 <= p < channels for p in member.positions)
    return known and len(member.positions) == width


def _row(site: GateSite) -> dict[str, Any]:
    row = dict(vars(site))
    for key in ('consumers', 'outputs'):
        row[key] = [
            [layer.path, layer.positions and _runs(layer.positions)]
            for layer in row[key]
        ]
    return row


def _site(row: dict[str, Any]) -> GateSite:
    members = {
        key: tuple(
            SiteLayer(path, None if runs is None else _positions(runs))
            for path, runs in row[key]
        )
        for key in ('consumers', 'outputs')
    }
    return GateSite(**(row | members))


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """First position and length of each run: p, p + 1, ..., or all -1."""

    def run_of(item: tuple[int, int]) -> int | None:
        index, position = item
        return None if position < 0 else position - index

    runs = [[*run] for _, run in groupby(enumerate(positions), run_of)]
    return [(run[0][1], len(run)) for run in runs]


def _positions(runs: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(
        first + i if first >= 0 else first
        for first, count in runs
        for i in range(count)
    )
