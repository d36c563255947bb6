"""What a site is: one place where channels are gated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Consumer:
    """A layer that reads a site's channels, at whose input they are masked.

    Attributes:
        path: Path of the conv or linear layer.
        positions: For every channel of its input, the site's channel that
            lies there, or -1 where another's does (concatenation); ``None``
            if its input is the site's channels in their order.
    """

    path: str
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class GateSite:
    """One place where channels are gated.

    Attributes:
        name: The site's name, which is the path of its producer: the conv or
            linear layer whose output channels are gated and whose input the
            gate looks at.
        consumers: The layers whose input is masked. Whatever lies between
            the producer and them is per channel (norm, activation, depthwise
            conv, pooling), so a closed channel can be skipped altogether.
        outputs: Paths of the layers whose output channels are the site's:
            the producer, depthwise convs, the last layer of a
            squeeze-excite.
        in_channels: Channels of the producer's input.
        channels: Channels that the gate opens and closes (C).
    """

    name: str
    consumers: tuple[Consumer, ...]
    outputs: tuple[str, ...]
    in_channels: int
    channels: int

    @property
    def producer(self) -> str:
        """Path of the layer whose output channels are gated."""
        return self.name

    @property
    def key(self) -> str:
        """The name as a key of ``nn.ModuleDict``, which forbids dots."""
        return self.name.replace('.', '/')

    def __str__(self) -> str:
        paths = ', '.join(consumer.path for consumer in self.consumers)
        return f'{self.name}: {self.channels} channels -> {paths}'
