"""MobileNetV1, which mmpretrain lacks."""

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.registry import MODELS

# channels and stride of each pair of a depthwise and a pointwise conv
PAIRS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # fmt: skip


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """13 pairs of a depthwise and a pointwise conv.

    Source: Howard et al., "MobileNets" (arXiv 1704.04861), Table 1; used by
    FTWT on ImageNet and on CIFAR.

    Args:
        width: Multiplier of all channels.
        small_images: Use stride 1 in the stem, for images of 32 x 32.
        in_channels: Channels of the image.
        init_cfg: Initialisation; default: He-normal convs.

    Shapes: (N, in_channels, H, W) -> ((N, 1024 * width, H/32, W/32),), or
    H/16 and W/16 for small images.
    """

    out_indices = (12,)  # the last pair, for tools that name the output

    def __init__(
        self,
        width: float = 1.0,
        small_images: bool = False,
        in_channels: int = 3,
        init_cfg: dict | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Kaiming', layer='Conv2d', mode='fan_out')
        super().__init__(init_cfg)
        channels = int(32 * width)
        if channels < 1:
            raise FGCError(
                f'width={width} of MobileNetV1 leaves no channel; give a '
                'positive number such as 0.5.'
            )
        stride = 1 if small_images else 2
        self.stem = _conv(in_channels, channels, 3, stride)
        self.pairs = nn.Sequential()
        for out_channels, stride in PAIRS:
            out_channels = int(out_channels * width)
            self.pairs.append(_pair(channels, out_channels, stride))
            channels = out_channels

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The last map, as mmpretrain's necks expect it."""
        return (self.pairs(self.stem(x)),)


def _conv(
    in_channels: int, channels: int, kernel: int, stride: int, groups: int = 1
) -> nn.Sequential:
    options: Any = dict(padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, **options),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _pair(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _conv(in_channels, in_channels, 3, stride, groups=in_channels),
        _conv(in_channels, channels, 1, 1),
    )
