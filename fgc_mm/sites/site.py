"""Gate sites."""

from dataclasses import dataclass, field

from torch import Tensor

from fgc_mm.functional.channel_groups import GroupSizes, spread_groups
from fgc_mm.sites.gate_dict import GateDict

# names that a GateDict has itself, such as values and training
TAKEN_KEYS = frozenset(dir(GateDict({})))
Positions = tuple[int, ...] | None


@dataclass(frozen=True)
class SiteLayer:
    """A layer that reads or writes a site's channels.

    Attributes:
        path: Path of the conv or linear layer.
        positions: For every input (or output) channel of the layer, the
            index of the site's channel, or -1 for a channel that does not
            belong to the site (concatenation); ``None``: the site's channels
            in order.
    """

    path: str
    positions: Positions = None


@dataclass(frozen=True)
class GateSite:
    """A set of channels that a gate opens and closes.

    Attributes:
        name: Path of the producer: the conv or linear layer whose output
            channels are gated and whose input the gate reads.
        consumers: The layers that read the channels; their input is masked.
            Everything between the producer and them is per channel (norm,
            activation, depthwise conv, pooling), so a closed channel can be
            skipped altogether.
        outputs: The layers whose output channels belong to the site: the
            producer, depthwise convs, the last layer of a squeeze-excite.
        in_channels: Channels of the producer's input.
        channels: Channels that the gate opens and closes (C).
        branch_end: For a residual site, the module whose output is masked
            (the last one before the sum), instead of the consumers' inputs.
        macs_share: Fraction of the MACs of the backbone without gates
            (attention and functional calls included) in the layers whose
            width this site reduces, at the image size of the search.
        group_sizes: Number of neighbouring channels that each decision of
            the gate opens; ``None``: one decision per channel.
    """

    name: str
    consumers: tuple[SiteLayer, ...]
    outputs: tuple[SiteLayer, ...]
    in_channels: int
    channels: int
    branch_end: str | None = None
    macs_share: float = field(default=0.0, compare=False)
    group_sizes: GroupSizes = field(default=None, compare=False)

    @property
    def producer(self) -> str:
        """Path of the layer whose output channels are gated."""
        return self.name

    @property
    def key(self) -> str:
        """The key of its gate."""
        return gate_key(self.name)

    @property
    def decisions(self) -> int:
        """Number of decisions of the gate for an image (G)."""
        if self.group_sizes is None:
            return self.channels
        return len(self.group_sizes)

    def spread(self, values: Tensor) -> Tensor:
        """Values per decision, (N, G), expanded to channels, (N, C)."""
        return spread_groups(values, self.group_sizes)

    @property
    def readers(self) -> list[str]:
        """Where the channels are read: layers, or a sum and then layers."""
        paths = [consumer.path for consumer in self.consumers]
        if self.branch_end is None:
            return paths
        return [f'sum after {self.branch_end}', *paths]

    @property
    def groups_text(self) -> str:
        """Number of groups in words; empty if there are none."""
        return f' in {self.decisions} groups' if self.group_sizes else ''

    def __str__(self) -> str:
        return (
            f'{self.name}: {self.channels} channels{self.groups_text} -> '
            f'{", ".join(self.readers)} ({self.macs_share:.1%} of the MACs)'
        )


def gate_key(site: str) -> str:
    """A site's name as a key of ``nn.ModuleDict``, which forbids dots.

    mmengine's complexity analysis separates module names by slashes, so the
    key has hyphens. The name of an attribute gets one at the end.
    """
    key = site.replace('.', '-')
    return f'{key}-' if key in TAKEN_KEYS else key
