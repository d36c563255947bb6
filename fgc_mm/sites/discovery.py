"""From a backbone and a user's wish to the list of sites."""

from collections.abc import Sequence

from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.residual_blocks import residual_block_sites
from fgc_mm.sites.site import GateSite


def find_sites(
    backbone: nn.Module, sites: str | Sequence[str] = 'auto'
) -> list[GateSite]:
    """The sites of a backbone.

    Args:
        backbone: The network to be gated.
        sites: ``'auto'`` for every site that can be found, or shell patterns
            on site names (the producing conv's path), e.g.
            ``['layer3.*.conv1']``.

    Raises:
        FGCError: The backbone has no site, or a pattern matches none.
    """
    found = residual_block_sites(backbone)
    if not found:
        raise FGCError(
            f'{type(backbone).__name__} has no conv inside a residual block '
            'whose channels could be gated; wrap a backbone of basic or '
            'bottleneck blocks (ResNet, ResNeXt, CifarResNet).'
        )
    if sites == 'auto':
        return found
    names = match_names(sites, [s.name for s in found], 'the site pattern')
    return [site for site in found if site.name in names]
