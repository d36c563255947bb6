"""An mmpretrain classifier with a gated backbone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.losses import GateBatch
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.models.class_scores import class_scores, independent_labels
from fgc_mm.models.gate_losses_mixin import GateLossesMixin
from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.models.gradient_reach import unread_layers
from fgc_mm.models.predictions import own_memory, to_host
from fgc_mm.models.teacher import Teacher
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord, keep_ratio


@MODELS.register_module()
class GatedImageClassifier(GateLossesMixin, ImageClassifier):
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
        **options: As in ``ImageClassifier``: neck, head, ...

    Raises:
        FGCError: The backbone is not gated, two gate losses have the same
            name, the teacher has other classes, a checkpoint has no
            parameter of this model, or a loss needs one tensor of class
            scores and the head returns several.
    """

    reserved_losses = 'cls', 'distillation'

    def __init__(
        self,
        backbone: dict | nn.Module,
        gate_losses: Sequence[dict] = (),
        distillation: dict | None = None,
        **options: Any,
    ) -> None:
        if distillation is not None and 'teacher' not in distillation:
            ungated = _ungated_config(
                backbone, options.get('neck'), options.get('head')
            )
            distillation = dict(distillation, teacher=ungated)
        super().__init__(backbone, gate_losses=gate_losses, **options)
        self._remove_unread_gates()
        self.distillation: DistillationLoss | None = None
        if distillation is not None:
            self._build_distillation(**distillation)

    def loss(
        self, inputs: Tensor, data_samples: list[DataSample]
    ) -> dict[str, Tensor]:
        """Classification loss, gate losses and the keep ratio."""
        self._has_trained = True
        feats, records = self._extract_gated(inputs)
        batch = self._gate_batch(inputs, data_samples, feats, records)
        losses = self.head.loss(feats, data_samples)
        # the total would overwrite the head's key ``loss``
        if 'loss' in losses:
            losses = {'loss_cls': losses.pop('loss'), **losses}
        for gate_loss in self.gate_losses:
            losses[f'loss_{gate_loss.name}'] = gate_loss(batch)
        if self.distillation is not None:
            losses['loss_distillation'] = self._distilled(inputs, feats)
        self._check_gradients(losses)
        losses['keep_ratio'] = keep_ratio(records)
        return losses

    def _distilled(self, inputs: Tensor, feats: Any) -> Tensor:
        """The distillation loss; the teacher runs only where it counts."""
        assert self.distillation is not None
        if not self.distillation.loss_weight.at(self.progress):
            return inputs.new_zeros(())
        return self.distillation(
            class_scores(self.head, feats, 'distillation'),
            self._teacher.scores(inputs),
            self.progress,
        )

    def parse_losses(
        self, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As in ``BaseModel``, but without averaging scalars again."""
        summands = [value for key, value in losses.items() if 'loss' in key]
        scalars = all(
            isinstance(value, Tensor) and value.dim() == 0
            for value in losses.values()
        )
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
            **kwargs: Arguments of the head's ``predict``.

        Raises:
            FGCError: As in :meth:`predict`.
        """
        feats, records = self._extract_gated(inputs, keep_activation)
        samples = self.head.predict(feats, data_samples, **kwargs)
        to_host(samples)
        own_memory(samples)
        self._attach_macs(samples, records, tuple(inputs.shape[1:]))
        return samples, records

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> Any:
        """As in ``ImageClassifier``, for any output of a backbone."""
        if stage == 'neck':
            return self._apply_neck(self.backbone(inputs))
        if stage == 'pre_logits' and hasattr(self.head, 'pre_logits'):
            return self.head.pre_logits(self.extract_feat(inputs))
        return super().extract_feat(inputs, stage)

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
        """Remove gates to which neck and head give no gradient."""
        gated = self.backbone
        find = gated.backbone.get_submodule
        neck = [self.neck] if self.with_neck else []
        head = [self.head] if self.with_head else []
        unread = unread_layers(
            gated.backbone,
            nn.Sequential(*neck, *head),
            {site.name: find(site.producer) for site in gated.sites},
            gated.found.image_shape,
        )
        if unread:
            gated.remove_gates(unread)
            print_log(
                f'No gate at {", ".join(unread)}: it would not learn, since '
                'neither neck nor head uses an output of the backbone that '
                'depends on it, or since the gradient to it is cut (detach, '
                'a comparison, rounding).',
                logger='current',
            )

    def _gate_batch(
        self,
        inputs: Tensor,
        data_samples: list[DataSample],
        feats: Any,
        records: list[GateRecord],
    ) -> GateBatch:
        """The gate losses' argument, with scores and MACs if needed."""
        shape = tuple(inputs.shape[1:])
        batch = self._batch_of_records(records, data_samples, shape)
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
