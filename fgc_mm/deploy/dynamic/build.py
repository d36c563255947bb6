"""Makes a dynamic model from a gated classifier or backbone."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Collection
from typing import Any, overload

import torch
from torch import Tensor, nn

from fgc_mm.deploy.comparing import TOLERANCES, Masked
from fgc_mm.deploy.dynamic.calibrate import calibrate, use_modules
from fgc_mm.deploy.dynamic.dynamic_plan import (
    BFLOAT16,
    DENSE,
    FLOAT32,
    DynamicPlan,
    SiteReport,
)
from fgc_mm.deploy.dynamic.model import (
    Dynamic,
    DynamicBackbone,
    DynamicImageClassifier,
)
from fgc_mm.deploy.dynamic.verify import Reference
from fgc_mm.deploy.firing import check_images, gated_backbone
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import load_library
from fgc_mm.sites.copying import copy_network

BACKENDS = ('auto', 'kernel', 'torch')
QUANTISED = {'quantized', 'quantization', 'qat'}  # packages of torch


@overload
def to_dynamic(
    model: GatedImageClassifier,
    images: Tensor | None = None,
    plan: DynamicPlan | None = None,
    backend: str = 'auto',
    precision: str | None = None,
) -> DynamicImageClassifier: ...


@overload
def to_dynamic(
    model: GatedBackbone,
    images: Tensor | None = None,
    plan: DynamicPlan | None = None,
    backend: str = 'auto',
    precision: str | None = None,
) -> DynamicBackbone: ...


def to_dynamic(
    model: Masked,
    images: Tensor | None = None,
    plan: DynamicPlan | None = None,
    backend: str = 'auto',
    precision: str | None = None,
) -> Dynamic:
    """A copy of a model that computes only the open channels of an image.

    The network is captured as a graph (:mod:`fgc_mm.deploy.graph`), norms
    are folded, and every operation gets the list of the channels that it
    computes; the compiled runtime runs the whole graph in one call. A short
    calibration decides for every site whether skipping is faster; if not,
    all channels are computed and masked. The result is compared with the
    masked model before it is returned.

    Args:
        model: A classifier, or a gated backbone alone, as of a detector:
            ``detector.backbone = to_dynamic(detector.backbone, images)``. In
            any mode; it is not changed.
        images: (N, 3, H, W) a few real images, after the data preprocessor.
        plan: Result of an earlier calibration (``plan`` of the returned
            model); ``images`` are then only used for verification.
        backend: ``'kernel'``: the compiled kernel; ``'torch'``: plain torch;
            ``'auto'``: the kernel if it can be built, otherwise torch with a
            warning.
        precision: ``'bfloat16'``: the compiled kernel rounds inputs and
            weights of convs to bfloat16 and sums in float32, on CPUs that
            multiply bfloat16 faster; others compute in float32 (see
            ``precision`` of the report). The error of logits is below 5 % of
            the largest one, unless a gate whose logit is near its threshold
            decides differently. ``None``: that of the plan, or
            ``'float32'``.

    Returns:
        A :class:`DynamicImageClassifier`, or a :class:`DynamicBackbone`, in
        evaluation, with ``dynamic_report()`` and ``plan``.

    Raises:
        FGCError: A model without gates, neither images nor plan, a plan of
            another model, an unknown backend or precision, or outputs that
            differ from the masked model's.

    Example:
        >>> from torch import nn
        >>> from fgc_mm.models import GatedBackbone, GatedImageClassifier
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> model = GatedImageClassifier(
        ...     GatedBackbone(net, dict(type='fgc_mm.BinaryConcreteGate')),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(type='LinearClsHead', num_classes=5, in_channels=4))
        >>> images = torch.randn(2, 3, 16, 16)
        >>> dynamic = to_dynamic(model, images, backend='torch')
        >>> dynamic(images).shape
        torch.Size([2, 5])
        >>> sorted(dynamic.dynamic_report()['sites'])
        ['0']
    """
    _check_name('backend', backend, BACKENDS)
    if precision is not None:
        _check_name('precision', precision, TOLERANCES)
    _check(model, images, plan)
    if images is None:
        assert plan is not None  # _check wants one of both
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(1, *plan.image_shape, generator=generator)
    if next(model.parameters()).device.type != 'cpu':
        return _masked_on_accelerator(model, images)
    compiled = _choose_backend(backend)
    precision = _choose_precision(precision, plan, compiled)
    images = images.detach().to(next(model.parameters()).dtype)
    eval_copy = copy_network(model).train(False)
    reference = Reference(eval_copy, images)
    dynamic = _build(model, eval_copy, compiled)
    backbone: Any = gated_backbone(dynamic)
    own = backbone.plan = copy.deepcopy(plan) or DynamicPlan(
        tuple(images.shape[1:]), torch.get_num_threads(), ''
    )
    own.backend = 'kernel' if compiled else 'torch'
    why = _reason_for_modules(dynamic, reference, images[:1])
    backbone.set_precision(FLOAT32 if why else precision)
    if why:
        use_modules(backbone, why)
    elif plan is None:
        calibrate(backbone, images)
    else:
        _apply_plan(backbone, own, images[:1])
    program = backbone.program_of(images[:1])
    backbone.build = getattr(program, 'build', '')
    used = getattr(program, 'precision', FLOAT32)
    backbone.computes_in = used if program else _name_of(images.dtype)
    own.precision = backbone.precision
    reference.verify(dynamic, TOLERANCES[used])
    backbone.drop_unused_programs()
    backbone._seen_shapes.clear()
    return dynamic


def _choose_backend(backend: str) -> bool:
    """Whether the compiled runtime is used."""
    if backend == 'torch':
        return False
    try:
        load_library()
    except LibraryError as error:
        if backend == 'kernel':
            raise
        _warn_once(str(error))
        return False
    return True


def _choose_precision(
    precision: str | None, plan: DynamicPlan | None, compiled: bool
) -> str:
    """The precision of programs."""
    if precision is None:
        precision = FLOAT32 if plan is None or not compiled else plan.precision
    if precision == BFLOAT16 and not compiled:
        raise FGCError(
            f'precision={precision!r} is one of the compiled runtime, and '
            "torch computes here; give backend='kernel', or leave precision "
            'out.'
        )
    return precision


@functools.cache
def _warn_once(problem: str) -> None:
    warnings.warn(
        'dynamic execution uses plain torch, which is slower, since there '
        f'is no compiled runtime: {problem}',
        stacklevel=4,
    )


def _check_name(option: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise FGCError(
            f'{option}={name!r} is none of {", ".join(known)}; give one of '
            'these names.'
        )


def _check(
    model: nn.Module, images: Tensor | None, plan: DynamicPlan | None
) -> None:
    gated = gated_backbone(model)
    if gated is not model and not isinstance(model, GatedImageClassifier):
        raise FGCError(
            f'{type(model).__name__} is not a classifier, and only whole '
            'classifiers can be made dynamic; make its backbone dynamic: '
            'model.backbone = to_dynamic(model.backbone, images).'
        )
    if isinstance(gated, DynamicBackbone):
        raise FGCError(
            'the model is dynamic already; give the one that it was made from.'
        )
    _refuse_own_code(model)
    _refuse_quantised(model)
    if images is None and plan is None:
        raise FGCError(
            'a calibration measures on real images, but neither images nor a '
            'plan was given; give some images (N, 3, H, W), or the plan of an '
            'earlier calibration.'
        )
    if images is not None:
        check_images(images)
    if plan is not None and not isinstance(plan, DynamicPlan):
        raise FGCError(
            f'plan is a {type(plan).__name__}, but a DynamicPlan is needed; '
            'read the file of one with DynamicPlan.load.'
        )
    if plan is not None:
        plan.check([site.name for site in gated.sites])


def _refuse_own_code(model: nn.Module) -> None:
    """Refuse a subclass of the classifier, whose code would not run."""
    if not isinstance(model, GatedImageClassifier):
        return
    for name in ('forward', 'extract_feat', 'predict'):
        own = getattr(type(model), name)
        if own is not getattr(GatedImageClassifier, name):
            raise FGCError(
                f'{type(model).__name__} has a {name} of its own, which a '
                'dynamic classifier would not run; make its backbone dynamic: '
                'model.backbone = to_dynamic(model.backbone, images).'
            )


def _refuse_quantised(model: nn.Module) -> None:
    """Refuse networks with layers that are quantised, or prepared for it."""
    for path, module in model.named_modules():
        own = [module, *module.parameters(recurse=False)]
        for kind in map(type, own):
            package, *words = kind.__module__.split('.')
            if package == 'torchao' or (
                package == 'torch' and not QUANTISED.isdisjoint(words)
            ):
                raise FGCError(
                    f'{path} has a {kind.__module__}.{kind.__name__}, but '
                    'channels are skipped in float layers only; make the '
                    'dynamic model from the one that was not quantised.'
                )


def _build(model: Masked, eval_copy: Masked, compiled: bool) -> Dynamic:
    """Build the dynamic model from a copy, whose modules it takes over."""
    if isinstance(eval_copy, GatedBackbone):
        return DynamicBackbone(eval_copy, compiled).requires_grad_(False)
    return DynamicImageClassifier(
        model,
        DynamicBackbone(eval_copy.backbone, compiled),
        eval_copy.neck,
        eval_copy.head,
        eval_copy.data_preprocessor,
    )


def _reason_for_modules(
    dynamic: Dynamic, reference: Reference, image: Tensor
) -> str:
    """Why the network's own modules must run; '' if a program can run."""
    if image.dtype != torch.float32:
        return f'programs compute in float32, and the model in {image.dtype}'
    backbone: Any = gated_backbone(dynamic)
    program = backbone.program(image)
    if isinstance(program, str):
        return program
    return reference.problem_of_programs(dynamic)


def _apply_plan(
    backbone: DynamicBackbone, plan: DynamicPlan, image: Tensor
) -> None:
    """Apply a stored plan as far as this model and machine allow it."""
    backbone.batch, backbone.executor = plan.batch, plan.executor
    backbone.set_single_threaded(plan.alone)
    backbone.dense = {
        name: site.why
        for name, site in plan.sites.items()
        if site.executed == DENSE
    }
    program = backbone.program(image)
    if isinstance(program, str):
        use_modules(backbone, program)
        return
    backbone.dense.update(program.why_dense)
    for name, why in backbone.dense.items():
        if plan.sites[name].executed != DENSE:
            plan.sites[name] = SiteReport(DENSE, why)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _masked_on_accelerator(model: Masked, images: Tensor) -> Dynamic:
    """The masked model on an accelerator, with a report that says why."""
    weight = next(model.parameters())
    dynamic = _build(model, copy_network(model).train(False), False)
    backbone: Any = gated_backbone(dynamic)
    backbone.computes_in = _name_of(weight.dtype)
    shape = tuple(images.shape[1:])
    backbone.plan = DynamicPlan(shape, torch.get_num_threads(), 'none')
    use_modules(
        backbone,
        f'the model is on {weight.device}: channels are skipped on the CPU '
        'only',
    )
    return dynamic
