"""A gate that is always open."""

from torch import Tensor, nn

from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.gates.decision import GateDecision
from fgc_mm.registry import MODELS


@MODELS.register_module()
class OpenGate(nn.Module):
    """Opens every channel, for passes of the dense network with records.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open (C).

    Shapes: (N, in_channels, H, W) -> three times (N, C).

    Example:
        >>> import torch
        >>> gate = OpenGate(in_channels=3, out_channels=2)
        >>> gate(torch.randn(1, 3, 16, 16)).mask
        tensor([[1., 1.]])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> GateDecision:
        """Open all."""
        like = global_average_pool(x.detach()).float()
        ones = like.new_ones(x.shape[0], self.out_channels)
        return GateDecision(ones, ones, ones)
