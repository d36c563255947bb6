"""Candidate sites of residual networks: the convs inside a block."""

import itertools

from torch import nn

from fgc_mm.sites.site import GateSite

# Blocks of mmpretrain's ResNet family (ResNeXt, SE-ResNet and RegNet inherit
# from them) and of CifarResNet. The last conv of a block feeds the residual
# sum, which is dense, and so it is nobody's producer.
BLOCKS = {'BasicBlock', 'Bottleneck'}


def residual_block_sites(backbone: nn.Module) -> list[GateSite]:
    """Every conv of a residual block that feeds the block's next conv.

    conv1 -> conv2 of a basic block; conv1 -> conv2 and conv2 -> conv3 of a
    bottleneck (BAS, section 3; FGC, section 3.1).
    """
    sites = []
    for name, module in backbone.named_modules():
        if any(cls.__name__ in BLOCKS for cls in type(module).__mro__):
            sites += _chain(name, module)
    return sites


def _chain(block: str, module: nn.Module) -> list[GateSite]:
    convs = [
        (f'{block}.{name}', child)
        for name, child in module.named_children()
        if name in ('conv1', 'conv2', 'conv3') and isinstance(child, nn.Conv2d)
    ]
    return [
        GateSite(
            name=name,
            producer=name,
            consumers=(follower,),
            in_channels=conv.in_channels,
            channels=conv.out_channels,
        )
        for (name, conv), (follower, _) in itertools.pairwise(convs)
    ]
