"""A classifier as a function of tensors, for exporters."""

from typing import Any

from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models.gated_backbone import as_outputs


class PlainForward(nn.Module):
    """Images in, logits out; for tracers a function of the images only.

    The hooks of a gated backbone keep a decision only from its producer to
    its consumers, within one forward pass. So for a tracer that runs this
    code (``torch.export`` without ``strict``, and the ONNX exporter based on
    it) the decisions are edges of the graph. A tracer that reads the code
    instead of running it (``torch.jit.script``) is not supported.

    Args:
        model: An mmpretrain classifier with a ``LinearClsHead`` or any head
            whose ``forward`` returns logits.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if getattr(model, 'head', None) is None:
            raise FGCError(
                f'{type(model).__name__} has no head, so it has no logits; '
                'give the config of a classifier.'
            )
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) from the data preprocessor -> (N, classes)."""
        feats = as_outputs(self.model.backbone(images))
        if self.model.with_neck:
            feats = self.model.neck(feats)
        return self.model.head(feats)

    def train(self, mode: bool = True) -> 'PlainForward':
        """As ``nn.Module.train``, which some backbones override."""
        for module in self.children():
            module.train(mode)
        self.training = mode
        return self
