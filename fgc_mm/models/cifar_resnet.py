"""ResNets of depth 6n+2 for images of 32 x 32."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.registry import MODELS


class BasicBlock(BaseModule):
    """Two 3x3 convs and a shortcut without parameters (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (channels - in_channels) // 2
        self.padding = before, channels - in_channels - before
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        sliced = x[:, :, :: self.stride, :: self.stride]
        return F.pad(sliced, (0, 0, 0, 0, *self.padding))


@MODELS.register_module()
class CifarResNet(BaseModule):
    """ResNet of depth 6n+2 for small images.

    Three stages of n basic blocks with 16, 32 and 64 channels, shortcut
    option A (He et al., CVPR 2016, section 4.2), as FGC, BAS and FTWT use
    them. mmpretrain's ``ResNet_CIFAR`` is another network (64 to 512
    channels, four stages).

    Args:
        depth: 20, 32, 44, 56 or 110.
        in_channels: Channels of the image.
        base_channels: Channels of the first stage.
        init_cfg: Initialisation, as in mmengine; default: He-normal convs.

    Shapes: (N, in_channels, H, W) -> ((N, 4 * base_channels, H/4, W/4),).
    """

    depths = (20, 32, 44, 56, 110)
    out_indices = (2,)  # the last stage, for tools that name the output

    def __init__(
        self,
        depth: int = 20,
        in_channels: int = 3,
        base_channels: int = 16,
        init_cfg: dict | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Kaiming', layer='Conv2d', mode='fan_in')
        super().__init__(init_cfg)
        if depth not in self.depths:
            raise FGCError(
                f'depth={depth} is not a depth of CifarResNet; choose among '
                f'{", ".join(map(str, self.depths))}.'
            )
        self.conv1 = nn.Conv2d(
            in_channels, base_channels, 3, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(base_channels)
        self.relu = nn.ReLU(inplace=True)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(base_channels, base_channels, blocks, 1)
        self.layer2 = _stage(base_channels, 2 * base_channels, blocks, 2)
        self.layer3 = _stage(2 * base_channels, 4 * base_channels, blocks, 2)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The last stage's map, as mmpretrain's necks expect it."""
        x = self.relu(self.bn1(self.conv1(x)))
        return (self.layer3(self.layer2(self.layer1(x))),)


def _stage(
    in_channels: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, channels, stride),
        *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)),
    )
