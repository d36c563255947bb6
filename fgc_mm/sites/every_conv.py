"""Sites of every conv: depthwise convs apart from the conv before them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fgc_mm.sites.site import GateSite, Member


@dataclass(frozen=True)
class Kinds:
    """Which kinds of sites are wanted beside the internal ones.

    Attributes:
        before_sum: Layers whose channels go into a residual sum.
        every_conv: Those, depthwise convs apart from the conv before them,
            and layers whose channels leave the backbone.
    """

    before_sum: bool = False
    every_conv: bool = False

    @property
    def residual(self) -> bool:
        """Whether some are masked where their branch ends."""
        return self.before_sum or self.every_conv


def split_depthwise(
    site: GateSite, alone: Callable[[str], bool]
) -> list[GateSite]:
    """A site for the producer, and one per depthwise conv behind it.

    The depthwise conv then reads what the site before it masks. A channel
    that is closed there is a constant behind the conv (a bias, a norm's
    offset), which the conv's own gate may close. As FTWT (arXiv 2110.08232)
    gates MobileNetV1.

    Args:
        site: Of a conv, with the depthwise convs among its outputs.
        alone: Whether a layer is a depthwise conv that all channels of the
            site pass on their way, so that nothing reads them before it.

    Returns:
        The sites in the order of the forward pass; the site itself where
        there is nothing to split, or it cannot be.
    """
    first, *behind = site.outputs
    if (
        not behind
        or site.branch_end is not None
        or first.path != site.name
        or any(member.positions is not None for member in site.outputs)
        or not all(alone(member.path) for member in behind)
    ):
        return [site]
    readers = [*((Member(member.path),) for member in behind), site.consumers]
    return [
        replace(
            site,
            name=member.path,
            consumers=consumers,
            outputs=(Member(member.path),),
            in_channels=site.channels if number else site.in_channels,
        )
        for number, (member, consumers) in enumerate(
            zip(site.outputs, readers, strict=True)
        )
    ]
