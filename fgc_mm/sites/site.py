"""What a site is: one place where channels are gated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GateSite:
    """One place where channels are gated.

    Attributes:
        name: The site's name; the path of its producer.
        producer: Path of the conv whose output channels are gated. Its
            input is also what the gate looks at.
        consumers: Paths of the convs whose input is masked. Whatever lies
            between the producer and them is per channel (norm, activation),
            so a closed channel can be skipped altogether.
        in_channels: Channels of the producer's input.
        channels: Channels that the gate opens and closes (C).
    """

    name: str
    producer: str
    consumers: tuple[str, ...]
    in_channels: int
    channels: int

    @property
    def key(self) -> str:
        """The name as a key of ``nn.ModuleDict``, which forbids dots."""
        return self.name.replace('.', '/')
