"""Gate losses and MACs per image, for every model with a gated backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.macs_matrix import KeptMatrices
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, GateLoss
from fgc_mm.models.counting import build_macs_table
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.models.gradient_reach import warn_unreached
from fgc_mm.models.image_macs import attach_macs, image_macs, refuse_non_finite
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord

# building one takes a forward pass, keeping it 0.6 KiB per layer
MOST_TABLES = 256  # of images of different sizes


class GateLossesMixin(BaseModel):
    """Gate losses and MACs per image for an MMEngine model.

    It comes first among the base classes; the ``__init__`` of the next one
    builds ``self.backbone``.

    Args:
        gate_losses: Configs of the gate losses; each is logged as
            ``loss_<name>``. The other arguments are those of the model.

    Raises:
        FGCError: The backbone is not gated, an entry of ``gate_losses`` is
            not a gate loss, or two have the same name. When a checkpoint is
            loaded: it has no parameter of this model.
    """

    backbone: GatedBackbone
    # names of losses that the model itself has
    reserved_losses: tuple[str, ...] = ()

    def __init__(
        self, *args: Any, gate_losses: Sequence[dict] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        backbone = getattr(self, 'backbone', None)
        if not isinstance(backbone, GatedBackbone):
            raise FGCError(
                f'the backbone {type(backbone).__name__} has no gates; '
                "wrap it: backbone=dict(type='fgc_mm.GatedBackbone', "
                'backbone=...).'
            )
        if not isinstance(gate_losses, (list, tuple)) or not all(
            isinstance(cfg, Mapping) for cfg in gate_losses
        ):
            raise FGCError(
                f'gate_losses={gate_losses!r} is not a list of configs; write '
                "gate_losses=[dict(type='fgc_mm.L0Loss', ...)]."
            )
        self.gate_losses = nn.ModuleList(
            MODELS.build(cfg) for cfg in gate_losses
        )
        _check_losses(self.gate_losses, self.reserved_losses)
        self._first_step = True
        self._tables: dict[tuple[int, ...], MACsTable] = {}
        self._matrices = KeptMatrices()
        self._has_trained = False  # in this process
        self.progress: Progress | None = None  # set by LossProgressHook
        self._register_load_state_dict_pre_hook(self._refuse_unrelated)

    def macs_table(self, image_shape: tuple[int, ...]) -> MACsTable:
        """MACs of the layers for an input (3, H, W); the last are cached."""
        table = self._tables.get(image_shape)
        if table is None:
            table = build_macs_table(self, image_shape)
            kept = [*self._tables.items()][1 - MOST_TABLES :]
            # a new dict, since another thread may read the old one
            self._tables = {**dict(kept), image_shape: table}
        return table

    def _batch_of_records(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None,
        image_shape: tuple[int, ...],
    ) -> GateBatch:
        """The argument of the gate losses, with a MACs table if needed."""
        needed = any(loss.needs_macs for loss in self.gate_losses)
        table = self.macs_table(image_shape) if needed else None
        return GateBatch(records, data_samples, self.progress, table)

    def _attach_macs(
        self,
        samples: Sequence[BaseDataElement],
        records: Sequence[GateRecord],
        image_shape: tuple[int, ...],
    ) -> None:
        """Add each image's MACs and open channels to its prediction.

        Raises:
            FGCError: A gate's output is nan or inf, and the model was not
                trained in this process.
        """
        table = self.macs_table(image_shape)
        macs, opened = image_macs(records, self._matrices.of(table))
        if macs.isnan().any() and not self._has_trained:
            refuse_non_finite(records)
        attach_macs(samples, macs, opened, table)

    def _check_gradients(self, losses: dict[str, Tensor]) -> None:
        """In the first training step, warn of gates without a gradient."""
        training = self.training and torch.is_grad_enabled()
        if not (self._first_step and training):
            return
        self._first_step = False
        regularisers = [x for x in self.gate_losses if not x.trains_gates]
        gated = self.backbone
        warn_unreached(
            {site.name: gated.gates[site.key] for site in gated.sites},
            losses,
            [f'loss_{loss.name}' for loss in regularisers],
        )

    def _refuse_unrelated(
        self, state_dict: dict, prefix: str, *_: Any
    ) -> None:
        """Raise an error if a checkpoint has no parameter of this model."""
        inner = self.backbone.backbone.state_dict()
        known = {*self.state_dict(), *(f'backbone.{key}' for key in inner)}
        names = {k[len(prefix) :] for k in state_dict if k.startswith(prefix)}
        if not names & known:
            raise FGCError(
                f'the checkpoint has {len(state_dict)} entries '
                f'({", ".join(list(state_dict)[:2])}, ...) and none is a '
                'parameter of this model; load a checkpoint of this config '
                'or of the same model without gates.'
            )


def _check_losses(losses: nn.ModuleList, reserved: Sequence[str]) -> None:
    for loss in losses:
        if not isinstance(loss, GateLoss):
            raise FGCError(
                f'{type(loss).__name__} in gate_losses is not a gate loss, '
                'which takes records; put it into the head, or use a loss of '
                'fgc_mm.'
            )
    names = [loss.name for loss in losses]
    for taken in reserved:
        if taken in names:
            raise FGCError(
                f'a gate loss is called {taken!r}, which would overwrite '
                f"the model's own loss_{taken}; give it another name=..."
            )
    for name in names:
        if names.count(name) > 1:
            raise FGCError(
                f'{names.count(name)} gate losses are called {name!r}, but '
                'each is logged under its name; give one of them name=...'
            )
