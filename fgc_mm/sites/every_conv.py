"""Sites of every conv: depthwise convs separate from the conv before them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fgc_mm.sites.site import GateSite, SiteLayer


@dataclass(frozen=True)
class SiteKinds:
    """Which kinds of sites are searched beside the internal ones.

    Attributes:
        before_sum: Layers whose channels go into a residual sum.
        every_conv: Those, depthwise convs apart from the conv before them,
            and layers whose channels leave the backbone.
    """

    before_sum: bool = False
    every_conv: bool = False

    @property
    def residual(self) -> bool:
        """Whether some sites are masked at the end of their branch."""
        return self.before_sum or self.every_conv


def split_depthwise(
    site: GateSite, separable: Callable[[str], bool]
) -> list[GateSite]:
    """Make a site for the producer, and one per depthwise conv behind it.

    The depthwise conv then is the consumer of the site before it. A channel
    closed there is a constant after the conv (a bias, a norm's offset),
    which the conv's own gate may close. FTWT (arXiv 2110.08232) gates
    MobileNetV1 in this way.

    Args:
        site: Of a conv, with the depthwise convs among its outputs.
        separable: Whether a layer is a depthwise conv that all channels of the
            site pass through, so that nothing reads them before it.

    Returns:
        The sites in the order of the forward pass; ``[site]`` where there is
        nothing to split, or it cannot be split.
    """
    first, *behind = site.outputs
    if (
        not behind
        or site.branch_end is not None
        or first.path != site.name
        or any(member.positions is not None for member in site.outputs)
        or not all(separable(member.path) for member in behind)
    ):
        return [site]
    readers = [
        *((SiteLayer(member.path),) for member in behind),
        site.consumers,
    ]
    return [
        replace(
            site,
            name=member.path,
            consumers=consumers,
            outputs=(SiteLayer(member.path),),
            in_channels=site.channels if number else site.in_channels,
        )
        for number, (member, consumers) in enumerate(
            zip(site.outputs, readers, strict=True)
        )
    ]
