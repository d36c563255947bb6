"""MACs (multiply-accumulates) of images, from the gates' decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class MACs:
    """Counts like :class:`fgc_mm.evaluation.DynamicMACs`.

    A layer's MACs are ``unit`` for every pair of an open input channel and
    an open output channel of the same group.

    Args:
        settings: ``macs`` of the file's JSON: ``dense`` (MACs of the network
            without gates), ``fixed`` (MACs independent of gates), ``layers``
            (unit, input channels, output channels, groups, sites of the
            inputs, sites of the outputs), where a site is its index and
            the index of its ``positions``, or null if its channels are in
            order; and ``positions``: runs ``[first, count]`` of a site's
            channels, -1 for channels that are not the site's.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.dense: int = settings['dense']
        self._fixed: int = settings['fixed']
        self._layers = settings['layers']
        self._positions = [
            _expand_runs(runs) for runs in settings['positions']
        ]

    def __call__(self, opened: Sequence[np.ndarray]) -> np.ndarray:
        """MACs of some images.

        Args:
            opened: For every site (N, C); a channel is closed where it is 0.

        Returns:
            (N,) float64.
        """
        # -1 selects the additional column of ones
        open_ = [
            np.pad(mask != 0, ((0, 0), (0, 1)), constant_values=True)
            for mask in opened
        ]
        total = np.full(len(open_[0]), float(self._fixed))
        for unit, inputs, outputs, groups, in_sites, out_sites in self._layers:
            both = (
                self._open(open_, in_sites, inputs, groups),
                self._open(open_, out_sites, outputs, groups),
            )
            total += unit * (both[0] * both[1]).sum(axis=1)
        return total

    def _open(
        self,
        opened: Sequence[np.ndarray],
        sites: Sequence[tuple[int, int | None]],
        channels: int,
        groups: int,
    ) -> np.ndarray:
        """Open channels of every group; (N, groups), or (1, groups)."""
        result = np.ones((1, channels), bool)
        for site, number in sites:
            if number is None:
                result = result & opened[site][:, :-1]
            else:
                result = result & opened[site][:, self._positions[number]]
        parts = result.reshape(len(result), groups, -1)
        return parts.sum(axis=2, dtype=np.float64)


def _expand_runs(runs: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.concatenate([
        np.full(count, -1) if first < 0 else np.arange(first, first + count)
        for first, count in runs
    ])  # fmt: skip
