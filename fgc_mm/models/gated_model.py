"""Any MMEngine model with a gated backbone: detectors, segmentors, ..."""

import functools
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.models.gate_losses_mixin import GateLossesMixin
from fgc_mm.models.record_collector import collect_records
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord, keep_ratio


class GatedModelMixin(GateLossesMixin):
    """Gate losses and MACs per image for detectors, segmentors and others.

    ``class GatedRetinaNet(GatedModelMixin, RetinaNet)`` is a ``RetinaNet``
    whose losses include the gate losses, and whose predictions have the MACs
    of their image. The model's code is not changed: the records are those of
    the single call of ``self.backbone`` in its forward pass. In a config,
    ``type='fgc_mm.GatedModel'`` makes such a class, see
    :func:`build_gated_model`.

    The model's ``forward(inputs, data_samples, mode)`` must follow MMEngine's
    convention: a dict of losses in mode ``'loss'``, one data sample per image
    in mode ``'predict'``, and in mode ``'tensor'`` a pass that needs the
    images alone, in which the MACs are counted.

    Its arguments are those of the model, and ``gate_losses``: the configs of
    the gate losses.

    Raises:
        FGCError: As :class:`GateLossesMixin`; a gate loss needs class scores.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for loss in self.gate_losses:
            if loss.needs_scores:
                raise FGCError(
                    f'{type(loss).__name__} in gate_losses needs the scores '
                    f'of a classifier, which {type(self).__name__} does not '
                    'have; set easiness=False.'
                )

    def forward(
        self,
        inputs: Tensor,
        data_samples: Any = None,
        mode: str = 'tensor',
        **kwargs: Any,
    ) -> Any:
        """The model's forward, with gate losses, or MACs per image, added.

        Raises:
            FGCError: The model does not call its backbone exactly once, a
                loss of its own has the name of a gate loss, or its passes do
                not have the inputs and results that MMEngine's convention
                requires.
        """
        if mode == 'tensor':
            return super().forward(inputs, data_samples, mode=mode, **kwargs)
        if not isinstance(inputs, Tensor):
            raise FGCError(
                f'the inputs of {type(self).__name__} are a '
                f'{type(inputs).__name__}, but MACs per image need one tensor '
                '(N, 3, H, W); override forward in a subclass that takes one.'
            )
        with collect_records(self.backbone) as calls:
            result = super().forward(inputs, data_samples, mode=mode, **kwargs)
        records = self._only_call(calls, mode)
        shape = tuple(inputs.shape[1:])
        if mode == 'loss':
            self._add_gate_losses(result, records, data_samples, shape)
        else:
            self._check_samples(result, len(inputs))
            self._attach_macs(result, records, shape)
        return result

    def macs_table(self, image_shape: tuple[int, ...]) -> MACsTable:
        """As :meth:`GateLossesMixin.macs_table`.

        Raises:
            FGCError: The model's forward pass needs more than images.
        """
        try:
            return super().macs_table(image_shape)
        except FGCError:
            raise
        except Exception as error:  # the model's code may raise anything
            raise FGCError(
                f'{type(self).__name__} fails in the pass that counts its '
                f'MACs ({type(error).__name__}: {_first_line(error)}), which '
                "has mode='tensor' and no data_samples; override forward in a "
                'subclass, so that this pass needs images alone.'
            ) from error

    def _add_gate_losses(
        self,
        losses: dict[str, Tensor],
        records: list[GateRecord],
        data_samples: Any,
        image_shape: tuple[int, ...],
    ) -> None:
        self._has_trained = True
        batch = self._batch_of_records(records, data_samples, image_shape)
        for loss in self.gate_losses:
            name = f'loss_{loss.name}'
            if name in losses:
                raise FGCError(
                    f'a gate loss is called {loss.name!r}, which would '
                    f"overwrite the model's own {name}; give it another "
                    'name=...'
                )
            losses[name] = loss(batch)
        self._check_gradients(losses)
        losses['keep_ratio'] = keep_ratio(records)

    def _only_call(
        self, calls: list[list[GateRecord]], mode: str
    ) -> list[GateRecord]:
        if len(calls) == 1:
            return calls[0]
        raise FGCError(
            f'{type(self).__name__} calls its backbone {len(calls)} times in '
            f'a forward pass with mode={mode!r}, but gate losses and MACs per '
            'image need exactly one call with all images; for segmentors set '
            "test_cfg=dict(mode='whole')."
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles the base class, since ``gated_class`` makes its own."""
        base = vars(type(self)).get('gated_base')
        if base is None:  # a subclass in a module
            return super().__reduce_ex__(protocol)
        return _new_gated, (base,), self.__dict__

    def _check_samples(self, samples: Any, count: int) -> None:
        listed = isinstance(samples, (list, tuple)) and len(samples) == count
        if not listed or not all(
            isinstance(sample, BaseDataElement) for sample in samples
        ):
            raise FGCError(
                f'{type(self).__name__} returns a {type(samples).__name__} in '
                "mode='predict', but its images' MACs are added to one data "
                'sample (BaseDataElement) per image; return a list of them.'
            )


def _new_gated(base: type[BaseModel]) -> BaseModel:
    return object.__new__(gated_class(base))  # type: ignore[arg-type]


@functools.cache
def gated_class(base: type[BaseModel]) -> type[BaseModel]:
    """The subclass of a model class with gate losses; one per class."""
    own = dict(gated_base=base)
    return type(f'Gated{base.__name__}', (GatedModelMixin, base), own)


@MODELS.register_module(name='GatedModel')
def build_gated_model(
    base: str | type[BaseModel],
    gate_losses: Sequence[dict] = (),
    **options: Any,
) -> BaseModel:
    """Build a detector, segmentor or any MMEngine model with gate losses.

    In a config of another library ``type`` becomes ``base``, and everything
    else stays the same: ``model = dict(type='fgc_mm.GatedModel',
    base='mmdet.RetinaNet', gate_losses=[...], backbone=dict(
    type='fgc_mm.GatedBackbone', backbone=..., gate=...), ...)``.

    Args:
        base: The registered name of the model's class, or the class.
        gate_losses: Configs of the gate losses.
        **options: Arguments of the model.

    Returns:
        An instance of ``base`` and of :class:`GatedModelMixin`.

    Raises:
        FGCError: No such model, or as :class:`GatedModelMixin`.
    """
    found: Any = base
    if isinstance(base, str):
        # a name without a scope is in the default scope, as in a config
        with MODELS.switch_scope_and_registry(None) as registry:
            found = registry.get(base)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise FGCError(
            f'base={base!r} of fgc_mm.GatedModel is no registered MMEngine '
            'model; give its name with its scope, as in '
            "base='mmdet.RetinaNet', and import its package with "
            'custom_imports.'
        )
    return gated_class(found)(gate_losses=gate_losses, **options)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [''])[0]
