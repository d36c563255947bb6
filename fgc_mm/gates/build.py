"""Building gates from their config."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.channel_groups import group_sizes
from fgc_mm.gates.grouped import GroupedGate
from fgc_mm.registry import MODELS, class_of


def build_gate(
    settings: Mapping[str, Any], in_channels: int, channels: int
) -> nn.Module:
    """The gate of a site.

    Args:
        settings: Config of the gate; ``group`` (default: 1) is the number of
            neighbouring channels that share one decision. The last decision
            has fewer channels if C is not a multiple, and a group of C or
            more is one decision for all.
        in_channels: Channels that the gate reads.
        channels: Channels that it opens and closes (C).

    Raises:
        FGCError: No config, or a group that is not a whole number of at
            least 1.
    """
    if not isinstance(settings, Mapping):
        raise FGCError(
            f'gate={settings!r} is not the config of a gate; write '
            "gate=dict(type='fgc_mm.BinaryConcreteGate')."
        )
    settings, group = split_group(settings)
    sizes = group_sizes(channels, group)
    if sizes is None:
        return build_ungrouped_gate(settings, in_channels, channels)
    settings = with_widths(settings, channels)
    return GroupedGate(
        build_ungrouped_gate(settings, in_channels, len(sizes)), sizes
    )


def build_ungrouped_gate(
    settings: Mapping[str, Any], in_channels: int, decisions: int
) -> nn.Module:
    """A gate with this number of outputs, from a config without ``group``."""
    return MODELS.build(
        dict(settings, in_channels=in_channels, out_channels=decisions)
    )


def split_group(settings: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Split a gate's config into the rest and ``group``."""
    settings = dict(settings)
    return settings, settings.pop('group', 1)


def with_widths(settings: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Config of a gate that has fewer outputs than channels.

    Settings that a gate derives from its number of channels (``widths_for``)
    are those of all channels, unless the config sets them.
    """
    widths_for = getattr(class_of(settings, MODELS), 'widths_for', None)
    widths = {} if widths_for is None else widths_for(channels)
    return {**widths, **settings}
