"""A classifier as a function of tensors, for exporters."""

from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models.gated_backbone import as_outputs


class PlainForward(nn.Module):
    """Images in, logits out, and no trace of Python in between.

    The hooks of a gated backbone keep a decision only from its producer to
    its consumers, inside one forward pass: it is opened and closed within
    ``forward``. So to a tracer that runs this code (``torch.export`` without
    ``strict``, and the ONNX exporter on top of it) the pass is a function of
    the images, and the decisions are edges of its graph. A tracer that reads
    the code instead of running it (``torch.jit.script``) cannot follow.

    Args:
        model: An mmpretrain classifier with a ``LinearClsHead`` or any head
            whose ``forward`` gives logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if getattr(model, 'head', None) is None:
            raise FGCError(
                f'{type(model).__name__} has no head, so it gives no logits; '
                'give the config of a classifier.'
            )
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) as the data preprocessor gives them -> (N, classes)."""
        feats = as_outputs(self.model.backbone(images))
        if self.model.with_neck:
            feats = self.model.neck(feats)
        return self.model.head(feats)

    def train(self, mode: bool = True) -> 'PlainForward':
        """As ``nn.Module.train``; some backbones' own returns nothing."""
        for module in self.children():
            module.train(mode)
        self.training = mode
        return self
