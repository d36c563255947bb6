"""Small networks with every kind of layer and tensor product."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
SWIN = dict(
    embed_dims=8,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    extra_norm_every_n_blocks=0,
)
# config of the backbone, and the size of its image
BACKBONES = {
    'BEiT': (
        dict(type='BEiTViT', arch=VIT, img_size=32, patch_size=8), 32
    ),
    'SwinV2': (
        dict(
            type='SwinTransformerV2', arch=SWIN, img_size=64,
            window_size=[4, 4, 4, 2],
        ),
        64,
    ),
    'ViT': (
        dict(type='VisionTransformer', arch=VIT, img_size=32, patch_size=8),
        32,
    ),
    'DeiT': (
        dict(
            type='DistilledVisionTransformer', arch=VIT, img_size=32,
            patch_size=8,
        ),
        32,
    ),
    'ResNet': (
        dict(type='ResNet', depth=18, base_channels=4, stem_channels=4), 32
    ),
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.1), 32),
}  # fmt: skip


class Holder(nn.Module):
    """A classifier that ends with its backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> object:
        return self.backbone(x)


class Functions(nn.Module):
    """Products that run without their module's forward, or have none.

    On an image of 4x4 the inputs of every product are 16 positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.kernel = nn.Parameter(torch.randn(8, 2, 3, 3))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.qkv = nn.Linear(8, 24)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 6))
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.stem(x), self.kernel, padding=1, groups=4)
        x = self.down(self.up(x)).flatten(2).mT
        q = F.linear(x, self.qkv.weight[:8])
        x = torch.einsum('nid,njd->nij', q, x) @ x
        x = self.attention(x, x, x)[0]
        return self.last(self.normed(x).relu())


# (name, source, MACs) of what a Functions computes for 3x4x4
FUNCTIONS = [
    ('backbone.stem', 'layer', 16 * 3 * 8),
    ('backbone.kernel', 'parameter', 16 * 9 * 8 * 2),
    ('backbone.up', 'layer', 16 * 4 * 8 * 4),
    ('backbone.down', 'layer', 16 * 4 * 4 * 8),
    ('backbone.qkv', 'parameter', 16 * 8 * 8),
    ('backbone', 'tensors', 16 * 8 * 16),
    ('backbone', 'tensors', 16 * 16 * 8),
    ('backbone.attention.in_proj_weight', 'parameter', 16 * 8 * 24),
    ('backbone.attention', 'tensors', 2 * 16 * 4 * 16),
    ('backbone.attention', 'tensors', 2 * 16 * 16 * 4),
    ('backbone.attention.out_proj', 'parameter', 16 * 8 * 8),
    ('backbone.normed', 'layer', 16 * 8 * 6),
    ('backbone.last', 'layer', 16 * 6 * 5),
]
