"""Scores and kind of labels of a classification head."""

from typing import Any

from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.models.losses import FocalLoss
from torch import Tensor, nn
from torch.func import functional_call

from fgc_mm.errors import FGCError


def independent_labels(head: nn.Module) -> bool:
    """Whether the labels are independent (a sigmoid per class).

    True for the multi-label heads, and for heads whose loss is a binary
    one per class (cross entropy, ``AsymmetricLoss``, ``FocalLoss``).
    """
    loss = getattr(head, 'loss_module', None)
    # LabelSmoothLoss contains the cross entropy
    parts = loss.modules() if isinstance(loss, nn.Module) else ()
    return isinstance(head, MultiLabelClsHead) or any(
        isinstance(part, FocalLoss) or getattr(part, 'use_sigmoid', False)
        for part in parts
    )


def class_scores(head: nn.Module, feats: Any, reader: str) -> Tensor:
    """The head's scores of a batch, before softmax or sigmoid.

    The head's buffers stay as they are: in training its own loss updates
    them, and this is another pass of the same batch.

    Args:
        head: The classification head.
        feats: Its input.
        reader: Name of what needs the scores, for the error.

    Returns:
        (N, classes).

    Raises:
        FGCError: The head returns several score tensors, as
            ``MultiTaskHead`` and ``ConformerHead`` do.
    """
    kept = head.named_buffers() if head.training else ()
    copies = {name: buffer.clone() for name, buffer in kept}
    scores = functional_call(head, copies, (feats,)) if copies else head(feats)
    if isinstance(scores, Tensor) and scores.ndim == 2:
        return scores
    raise FGCError(
        f'{type(head).__name__} returns a {type(scores).__name__} of scores, '
        f'but {reader} needs one tensor (N, classes); use a head with one '
        f'task and one output, or leave {reader} out.'
    )
