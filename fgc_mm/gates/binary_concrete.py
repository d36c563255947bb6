"""The gate of BAS and FGC."""

from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import binary_concrete
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.gates.checks import check_threshold, logit
from fgc_mm.gates.decision import GateDecision
from fgc_mm.registry import MODELS

WEIGHT_INITS = ('torch', 'kaiming_normal')


@MODELS.register_module()
class BinaryConcreteGate(nn.Module):
    """Squeeze, two linear layers, binary concrete sample.

    Global average pool of the block's input, linear without bias to
    ``hidden_channels``, BatchNorm, ReLU, linear to one logit per channel
    (BAS, ICLR 2020, section 3.1; FGC, arXiv 2111.14302, Eq. 3). In training
    the mask is a binary concrete sample, hard forward and soft backward; in
    evaluation it is ``logits > 0``, or what else the threshold says.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        hidden_channels: Width of the hidden layer.
        temperature: Concrete temperature.
        weight_init: Start of the two linear layers' weights: ``'torch'``, as
            ``nn.Linear`` makes them, or ``'kaiming_normal'`` (fan in, gain
            sqrt 2), as the published code of FGC does; initial logits then
            have a standard deviation of about 1.0 instead of 0.4.
        init_bias: Initial value of the logits' bias; above 0, a channel is
            open more often than not when training starts. ``None``: as
            ``nn.Linear`` makes it (published code of FGC).
        threshold: Probability above which evaluation opens a channel; a
            higher one prunes a trained model further.

    Shapes: (N, in_channels, H, W) -> three times (N, C), float32.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 16,
        temperature: float = 2 / 3,
        weight_init: str = 'torch',
        init_bias: float | None = 0.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise FGCError(
                f'temperature={temperature} of BinaryConcreteGate is not '
                'positive; the published value is 2/3.'
            )
        check_threshold(threshold, 'BinaryConcreteGate')
        self.temperature = temperature
        self.threshold = threshold
        self.squeeze = nn.Linear(in_channels, hidden_channels, bias=False)
        self.norm = nn.BatchNorm1d(hidden_channels)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(hidden_channels, out_channels)
        self._initialize(weight_init, init_bias)

    def forward(self, x: Tensor) -> GateDecision:
        """Decide for every image of the batch."""
        if self.training and len(x) == 1 and not self._norm_is_fixed():
            raise FGCError(
                'a training batch of 1 image leaves the BatchNorm of the '
                'gate without a spread; use a batch_size of at least 2 that '
                'leaves no last batch of 1, or, where there are more images '
                'than batch_size, drop_last=True in the train_dataloader.'
            )
        hidden = self.act(self.norm(self.squeeze(global_average_pool(x))))
        logits = self.expand(hidden).float()
        if self.training:
            mask = binary_concrete(logits, self.temperature)
        else:
            mask = (logits > logit(self.threshold)).to(logits.dtype)
        return GateDecision(logits, logits.sigmoid(), mask)

    def _initialize(self, weights: str, bias: float | None) -> None:
        if weights not in WEIGHT_INITS:
            raise FGCError(
                f'weight_init={weights!r} of BinaryConcreteGate is unknown; '
                f'choose among {", ".join(WEIGHT_INITS)}.'
            )
        if weights == 'kaiming_normal':
            nn.init.kaiming_normal_(self.squeeze.weight)
            nn.init.kaiming_normal_(self.expand.weight)
        if bias is not None:
            nn.init.constant_(self.expand.bias, bias)

    def _norm_is_fixed(self) -> bool:
        # a synchronised norm sees the images of the other ranks too
        return not self.norm.training or isinstance(
            self.norm, nn.SyncBatchNorm
        )
