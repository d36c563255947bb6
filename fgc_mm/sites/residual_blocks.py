"""Candidate sites of residual networks: the convs inside a block."""

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
    sites = []
    for name, follower in (('conv1', 'conv2'), ('conv2', 'conv3')):
        conv = getattr(module, name, None)
        # Where conv2 is no plain conv (Res2Net, ResNeSt), what lies between
        # conv1 and conv3 mixes channels, and no mask would fit both.
        if _is_conv(conv) and _is_conv(getattr(module, follower, None)):
            sites.append(_site(f'{block}.{name}', f'{block}.{follower}', conv))
    return sites


def _is_conv(module: object) -> bool:
    return isinstance(module, nn.Conv2d)


def _site(producer: str, consumer: str, conv: nn.Conv2d) -> GateSite:
    return GateSite(
        name=producer,
        producer=producer,
        consumers=(consumer,),
        in_channels=conv.in_channels,
        channels=conv.out_channels,
    )
