"""An mmpretrain classifier with a gated backbone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import nan
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample, MultiTaskDataSample
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.macs_matrix import MACsMatrices
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, GateLoss
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.models.class_scores import class_scores, independent_labels
from fgc_mm.models.counting import build_macs_table
from fgc_mm.models.gated_backbone import GatedBackbone, as_outputs
from fgc_mm.models.gradient_reach import (
    NeckAndHead,
    unread_layers,
    warn_unreached,
)
from fgc_mm.models.predictions import own_memory, to_host
from fgc_mm.models.teacher import Teacher
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord, keep_ratio


@MODELS.register_module()
class GatedImageClassifier(ImageClassifier):
    """``ImageClassifier`` with gate losses and MACs per image.

    Args:
        backbone: Config of a :class:`GatedBackbone`, or the module.
        gate_losses: Configs of the gate losses; each is logged as
            ``loss_<name>``.
        distillation: ``dict(teacher=..., checkpoint=..., temperature=4,
            loss_weight=1)``: knowledge distillation from a trained network
            (its config, or the path of one), which gets the same
            preprocessed images; logged as ``loss_distillation``. Default
            ``teacher``: this network without gates; default ``checkpoint``:
            ``load_from`` in ``tools/train.py``.
        neck: As in ``ImageClassifier``.
        head: As in ``ImageClassifier``.
        pretrained: As in ``ImageClassifier``.
        train_cfg: As in ``ImageClassifier``.
        data_preprocessor: As in ``ImageClassifier``.
        init_cfg: As in ``ImageClassifier``.

    Raises:
        FGCError: The backbone is not gated, two gate losses have the same
            name, the teacher has other classes, a checkpoint has no
            parameter of this model, or a loss needs one tensor of class
            scores and the head returns several.
    """

    backbone: GatedBackbone

    def __init__(
        self,
        backbone: dict | nn.Module,
        gate_losses: Sequence[dict] = (),
        distillation: dict | None = None,
        neck: dict | None = None,
        head: dict | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if distillation is not None and 'teacher' not in distillation:
            ungated = _ungated_config(backbone, neck, head)
            distillation = dict(distillation, teacher=ungated)
        super().__init__(
            backbone,
            neck,
            head,
            pretrained,
            train_cfg,
            data_preprocessor,
            init_cfg,
        )
        if not isinstance(self.backbone, GatedBackbone):
            raise FGCError(
                f'the backbone {type(self.backbone).__name__} has no gates; '
                "wrap it: backbone=dict(type='fgc_mm.GatedBackbone', "
                'backbone=...).'
            )
        self.gate_losses = nn.ModuleList(
            MODELS.build(cfg) for cfg in gate_losses
        )
        _check_losses(self.gate_losses)
        self._remove_unread_gates()
        self._first_step = True
        self.distillation: DistillationLoss | None = None
        if distillation is not None:
            self._build_distillation(**distillation)
        self._tables: dict[tuple[int, ...], MACsTable] = {}
        self._matrices: MACsMatrices | None = None  # of the last table
        self._has_trained = False  # in this process
        self.progress: Progress | None = None  # set by LossProgressHook
        self._register_load_state_dict_pre_hook(self._refuse_unrelated)

    def loss(
        self, inputs: Tensor, data_samples: list[DataSample]
    ) -> dict[str, Tensor]:
        """Classification loss, gate losses and the keep ratio."""
        self._has_trained = True
        feats, records = self._extract_gated(inputs)
        batch = self._gate_batch(inputs, data_samples, feats, records)
        losses = self.head.loss(feats, data_samples)
        # the head's own key, ``loss``, would be overwritten by the total
        if 'loss' in losses:
            losses = {'loss_cls': losses.pop('loss'), **losses}
        for gate_loss in self.gate_losses:
            losses[f'loss_{gate_loss.name}'] = gate_loss(batch)
        if self.distillation is not None:
            losses['loss_distillation'] = self.distillation(
                class_scores(self.head, feats, 'distillation'),
                self._teacher.scores(inputs),
                self.progress,
            )
        self._check_gradients(losses)
        losses['keep_ratio'] = keep_ratio(records)
        return losses

    def parse_losses(
        self, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As in ``BaseModel``, but without averaging scalars again."""
        summands = [value for key, value in losses.items() if 'loss' in key]
        scalars = all(_is_scalar(value) for value in losses.values())
        if not scalars or not summands or 'loss' in losses:
            return super().parse_losses(losses)
        total = sum(summands[1:], start=summands[0])
        return total, dict(loss=total, **losses)

    def predict(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> list[DataSample]:
        """Predictions with their image's MACs and open channels.

        Every sample gets ``macs`` (), ``gate_masks`` (sum of C,) and
        ``macs_table``, one object that all samples share. If a gate's output
        is nan or inf, ``macs`` is nan while the model is being trained.

        Raises:
            FGCError: A gate's output is nan or inf, and the model was not
                trained in this process.
        """
        return self.predict_gated(inputs, data_samples, **kwargs)[0]

    def predict_gated(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        keep_activation: bool | None = None,
        **kwargs: Any,
    ) -> tuple[list[DataSample], list[GateRecord]]:
        """Predictions like those of :meth:`predict`, and gate records.

        Args:
            inputs: (N, 3, H, W), preprocessed.
            data_samples: One per image; the predictions are added to them.
            keep_activation: As in ``GatedBackbone.forward_gated``.
            **kwargs: For the head.

        Raises:
            FGCError: As in :meth:`predict`.
        """
        feats, records = self._extract_gated(inputs, keep_activation)
        samples = self.head.predict(feats, data_samples, **kwargs)
        to_host(samples)
        own_memory(samples)
        table = self.macs_table(tuple(inputs.shape[1:]))
        matrices = self._matrices  # another thread may replace it
        if matrices is None or matrices.table is not table:
            matrices = self._matrices = MACsMatrices(table)
        opened = torch.cat([r.mask for r in records], dim=1) != 0
        macs = matrices(opened.double())
        macs = macs.masked_fill(_non_finite_images(records), nan).cpu()
        if macs.isnan().any() and not self._has_trained:
            _refuse_non_finite(records)
        _attach_macs(samples, macs, opened.cpu(), table)
        return samples, records

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> Any:
        """As in ``ImageClassifier``; also for backbones without tuples."""
        if stage == 'neck':
            return self._apply_neck(self.backbone(inputs))
        if stage == 'pre_logits' and hasattr(self.head, 'pre_logits'):
            return self.head.pre_logits(
                self._apply_neck(self.backbone(inputs))
            )
        return super().extract_feat(inputs, stage)

    def macs_table(self, image_shape: tuple[int, ...]) -> MACsTable:
        """MACs of the layers for an input (3, H, W); cached."""
        if image_shape not in self._tables:
            self._tables[image_shape] = build_macs_table(self, image_shape)
        return self._tables[image_shape]

    def train(self, mode: bool = True) -> 'GatedImageClassifier':
        """As ``nn.Module.train``."""
        super().train(mode)
        return self

    def _extract_gated(
        self, inputs: Tensor, keep_activation: bool | None = None
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        outputs, records = self.backbone.forward_gated(inputs, keep_activation)
        return self._apply_neck(outputs), records

    def _apply_neck(self, outputs: Any) -> Any:
        """The head's input for an output of the backbone."""
        feats = as_outputs(outputs)
        return self.neck(feats) if self.with_neck else feats

    def _remove_unread_gates(self) -> None:
        """Remove gates that neither neck nor head depends on."""
        gated = self.backbone
        find = gated.backbone.get_submodule
        unread = unread_layers(
            gated.backbone,
            NeckAndHead(self),
            {site.name: find(site.producer) for site in gated.sites},
            gated.found.image_shape,
        )
        if unread:
            gated.remove_gates(unread)
            print_log(
                f'No gate at {", ".join(unread)}: neither neck nor head uses '
                'an output of the backbone that depends on it.',
                logger='current',
            )

    def _check_gradients(self, losses: dict[str, Tensor]) -> None:
        """In the first training step, warn of gates without a gradient."""
        training = self.training and torch.is_grad_enabled()
        if not (self._first_step and training):
            return
        self._first_step = False
        names = [
            f'loss_{x.name}' for x in self.gate_losses if not x.trains_gates
        ]
        gates = {
            site.name: self.backbone.gates[site.key]
            for site in self.backbone.sites
        }
        warn_unreached(gates, losses, names)

    def _gate_batch(
        self,
        inputs: Tensor,
        data_samples: list[DataSample],
        feats: Any,
        records: list[GateRecord],
    ) -> GateBatch:
        """What the gate losses see of a batch, as far as they need it."""
        batch = GateBatch(records, data_samples, self.progress)
        if any(loss.needs_macs for loss in self.gate_losses):
            table = self.macs_table(tuple(inputs.shape[1:]))
            batch = replace(batch, macs_table=table)
        readers = [x for x in self.gate_losses if x.needs_scores]
        if readers:
            with torch.no_grad():
                scores = class_scores(
                    self.head, feats, type(readers[0]).__name__
                )
            independent = independent_labels(self.head)
            batch = replace(
                batch, scores=scores, independent_labels=independent
            )
        return batch

    def _build_distillation(
        self,
        teacher: str | dict,
        checkpoint: str | None = None,
        **options: Any,
    ) -> None:
        self.distillation = DistillationLoss(
            **options, independent_labels=independent_labels(self.head)
        )
        self._teacher = Teacher(teacher, checkpoint)
        self._teacher.check_same_classes(self.head)

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
                'or of the same mmpretrain model without gates.'
            )


def _ungated_config(
    backbone: dict | nn.Module, neck: dict | None, head: dict | None
) -> dict[str, Any]:
    """Config of the classifier without gates.

    Raises:
        FGCError: The backbone is a module, so its config is unknown.
    """
    if not (isinstance(backbone, Mapping) and 'backbone' in backbone):
        raise FGCError(
            'the distillation has no teacher and the backbone is a '
            f'{type(backbone).__name__}, not the config of a gated one, so '
            'the dense network cannot be built; give teacher=... in '
            'distillation.'
        )
    parts = dict(backbone=backbone['backbone'], neck=neck, head=head)
    return dict(type='ImageClassifier', **deepcopy(parts))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _non_finite_images(records: list[GateRecord]) -> Tensor:
    """Images for which some gate's output is nan or inf; (N,) bool."""
    # nan > 0 is false, so such a network would look pruned
    logits = torch.cat([record.logits for record in records], dim=1)
    return ~logits.isfinite().all(dim=1)


def _attach_macs(
    samples: list[DataSample], macs: Tensor, opened: Tensor, table: MACsTable
) -> None:
    for sample, cost, row in zip(samples, macs, opened):
        # every data field of a multi-task sample counts as a task
        tasks = isinstance(sample, MultiTaskDataSample)
        kind = 'metainfo' if tasks else 'data'
        sample.set_field(cost.clone(), 'macs', field_type=kind)
        sample.set_field(row.clone(), 'gate_masks', field_type=kind)
        sample.set_field(table, 'macs_table', field_type=kind)
        # lets an evaluator check that the prediction was not changed
        score = sample.get('pred_score', None)
        sample.set_field(score, 'gated_score', field_type=kind)


def _refuse_non_finite(records: list[GateRecord]) -> None:
    for record in records:
        if not record.logits.isfinite().all():
            raise FGCError(
                f'the gate of {record.site.name} outputs nan or inf, so its '
                'channels are neither open nor closed; train with a lower '
                'learning rate, or test another checkpoint.'
            )


def _check_losses(losses: nn.ModuleList) -> None:
    for loss in losses:
        if not isinstance(loss, GateLoss):
            raise FGCError(
                f'{type(loss).__name__} in gate_losses is not a gate loss, '
                'which takes records; put it into the head, or use a loss of '
                'fgc_mm.'
            )
    names = [loss.name for loss in losses]
    for taken in ('cls', 'distillation'):
        if taken in names:
            raise FGCError(
                f'a gate loss is called {taken!r}, which would overwrite '
                f"the classifier's own loss_{taken}; give it another name=..."
            )
    for name in names:
        if names.count(name) > 1:
            raise FGCError(
                f'{names.count(name)} gate losses are called {name!r}, but '
                'each is logged under its name; give one of them name=...'
            )
