"""Sites for every conv, with separate ones for depthwise convs."""

from collections.abc import Callable
from dataclasses import replace

from fgc_mm.sites.site import GateSite, SiteLayer


def split_depthwise(
    site: GateSite, is_separable: Callable[[str], bool]
) -> list[GateSite]:
    """Split a site into one for the producer and one per depthwise conv.

    The depthwise conv is then the consumer of the producer's site. A channel
    that is closed at that site is a constant after the depthwise conv (a
    bias, a norm's offset), where the gate of the conv can close it. FTWT
    (arXiv 2110.08232) gates MobileNetV1 in this way.

    Args:
        site: Site of a conv, with the depthwise convs among its outputs.
        is_separable: Whether a layer is a depthwise conv that all channels
            of the site pass through, so that nothing reads them before it.

    Returns:
        The sites in the order of the forward pass; ``[site]`` if it has no
        depthwise conv or cannot be split.
    """
    first, *depthwise = site.outputs
    if (
        not depthwise
        or site.branch_end is not None
        or first.path != site.name
        or any(layer.positions is not None for layer in site.outputs)
        or not all(is_separable(layer.path) for layer in depthwise)
    ):
        return [site]
    readers = [
        *((SiteLayer(layer.path),) for layer in depthwise),
        site.consumers,
    ]
    return [
        replace(
            site,
            name=layer.path,
            consumers=consumers,
            outputs=(SiteLayer(layer.path),),
            in_channels=site.channels if number else site.in_channels,
        )
        for number, (layer, consumers) in enumerate(
            zip(site.outputs, readers, strict=True)
        )
    ]
