"""From a gated classifier to one that is faster on a clock."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.calibrate import calibrate
from fgc_mm.deploy.dynamic.copying import evaluating_copy, refuse_quantised
from fgc_mm.deploy.dynamic.fold import fold, replace_modules
from fgc_mm.deploy.dynamic.kernel import choose_kernel
from fgc_mm.deploy.dynamic.layers import (
    DynamicConv,
    DynamicLayer,
    DynamicLinear,
    is_plain,
)
from fgc_mm.deploy.dynamic.model import (
    DynamicBackbone,
    DynamicImageClassifier,
    Ports,
)
from fgc_mm.deploy.dynamic.plan import (
    DENSE,
    MODULES,
    DynamicPlan,
    SiteReport,
)
from fgc_mm.deploy.dynamic.port import DynamicPort, WideningPort
from fgc_mm.deploy.dynamic.refold import MaskedEntries
from fgc_mm.deploy.dynamic.verify import Reference
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.sites import GateSite, SitePort
from fgc_mm.sites.layout import is_depthwise, lone_depthwise


def to_dynamic(
    model: GatedImageClassifier,
    images: Tensor | None = None,
    plan: DynamicPlan | None = None,
    backend: str = 'auto',
) -> nn.Module:
    """A copy of a model that computes the open channels of an image only.

    The backbone's own forward code runs as it is; its convs are replaced by
    ones with their norms folded in, which take and give open channels only.
    Where the kernel knows all that the backbone does, the whole of it is one
    call. A short calibration decides for every site whether skipping pays;
    where it does not, all channels are computed and masked. Everything is
    verified against the masked model before it is handed out.

    Args:
        model: In any mode; it stays as it is.
        images: (N, 3, H, W) real images, as the model takes them (after the
            data preprocessor): a handful is enough.
        plan: What an earlier calibration decided, ``model.plan`` of its
            result; then ``images`` only verify.
        backend: ``'kernel'``: the compiled kernel; ``'torch'``: plain torch;
            ``'auto'``: the kernel if it can be built, else torch with a
            warning.

    Returns:
        A :class:`DynamicImageClassifier`, in evaluation, with
        ``dynamic_report()`` and ``plan``.

    Raises:
        FGCError: A model without gates, neither images nor plan, a plan of
            another model, or logits that differ from the masked model's.
    """
    _check(model, images, plan)
    if next(model.parameters()).device.type != 'cpu':
        return _left_alone(model, images, plan)
    compiled = choose_kernel(backend) is not None
    if images is None:
        images = _noise(plan.image_shape)
    images = images.detach().to(next(model.parameters()).dtype)
    reference = Reference(model, images)
    dynamic, ports = _build(model, images[:1], compiled)
    new = plan is None
    if new:
        plan = DynamicPlan(
            tuple(images.shape[1:]),
            torch.get_num_threads(),
            '',
        )
    dynamic.plan = copy.deepcopy(plan)
    dynamic.plan.backend = 'kernel' if compiled else 'torch'
    reasons = _reasons(ports)
    why = _why_modules(dynamic, reference, images[:1])
    if why:
        dynamic.backbone.executor = dynamic.plan.executor = MODULES
        dynamic.plan.executor_why = why
    reference.settle(dynamic, reasons)
    if new:
        calibrate(dynamic, images, reasons)
    else:
        _obey(dynamic, reasons)
    reference.verify(dynamic)
    dynamic._seen.clear()
    return dynamic


def _why_modules(
    dynamic: DynamicImageClassifier, reference: Reference, image: Tensor
) -> str:
    """Why the backbone's own code runs, in words; '' if one call may."""
    if dynamic.plan.backend != 'kernel':
        return 'no compiled kernel is used'
    program = dynamic.backbone.program(image)
    if isinstance(program, str):
        return program
    # its own code may be right where what was recorded of it is not
    if reference.problem(dynamic):
        return 'one call of the kernel gives other logits'
    return ''


def _check(
    model: nn.Module, images: Tensor | None, plan: DynamicPlan | None
) -> None:
    gated = getattr(model, 'backbone', None)
    if not isinstance(gated, GatedBackbone):
        raise FGCError(
            f'{type(model).__name__} has no gates, so there is nothing to '
            'skip; give a fgc_mm.GatedImageClassifier.'
        )
    if isinstance(gated, DynamicBackbone):
        raise FGCError(
            'the model is dynamic already; give the one that it was made from.'
        )
    refuse_quantised(model)
    if images is None and plan is None:
        raise FGCError(
            'whether skipping pays is measured on real images, but neither '
            'images nor a plan was given; give some images (N, 3, H, W), or '
            'the plan of an earlier calibration.'
        )
    if images is not None and (images.dim() != 4 or len(images) == 0):
        raise FGCError(
            f'images have shape {tuple(images.shape)}, but a calibration '
            'takes (N, 3, H, W) with at least one image.'
        )
    if plan is not None:
        plan.check([site.name for site in gated.sites])


def _noise(shape: Sequence[int]) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def _copied(model: GatedImageClassifier) -> GatedImageClassifier:
    """In evaluation, with no hook on the backbone's layers."""
    twin = evaluating_copy(model)
    for module in twin.backbone.backbone.modules():
        for number, hook in list(module._forward_pre_hooks.items()):
            if _is_a_ports(hook):
                del module._forward_pre_hooks[number]
        for number, hook in list(module._forward_hooks.items()):
            if _is_a_ports(hook):
                del module._forward_hooks[number]
    return twin


def _is_a_ports(hook: object) -> bool:
    hook = getattr(hook, 'func', hook)  # a partial
    return isinstance(getattr(hook, '__self__', None), SitePort)


def _build(
    model: GatedImageClassifier, image: Tensor, compiled: bool
) -> tuple[DynamicImageClassifier, Ports]:
    twin = _copied(model)
    gated = twin.backbone
    network = gated.backbone
    before = list(network.state_dict())
    convs = fold(network, image, compiled)
    _make_linears(network, gated.sites)
    ports = [_port(network, gated, site, compiled) for site in gated.sites]
    widening = [port for port in ports if isinstance(port, WideningPort)]
    SitePort.attach(widening, network.get_submodule)
    dynamic = DynamicImageClassifier(
        model,
        DynamicBackbone(gated, ports),
        twin.neck,
        twin.head,
        twin.data_preprocessor,
    )
    masked = MaskedEntries(before, network.state_dict(), convs)
    dynamic.backbone._register_load_state_dict_pre_hook(masked.adopt)
    return dynamic, ports


def _make_linears(network: nn.Module, sites: Sequence[GateSite]) -> None:
    swap = {}
    for site in sites:
        for member in (*site.outputs, *site.consumers):
            layer = network.get_submodule(member.path)
            if is_plain(layer, nn.Linear) and id(layer) not in swap:
                swap[id(layer)] = DynamicLinear.of(layer)
    replace_modules(network, swap)


def _port(
    network: nn.Module, gated: GatedBackbone, site: GateSite, compiled: bool
) -> SitePort | DynamicPort:
    """A site's port, told to its layers if it can be dynamic."""
    gate = gated.gates[site.key]
    why = _why_masked(network, site)
    if why:
        return WideningPort(site, gate, why)
    port = DynamicPort(site, gate, compiled)
    for member in site.consumers:
        network.get_submodule(member.path).reads = port
    for member in site.outputs:
        network.get_submodule(member.path).writes = port
    network.get_submodule(site.producer).decides = True
    return port


def _why_masked(network: nn.Module, site: GateSite) -> str:
    """Why a site cannot be dynamic, in words; '' if it may."""
    if site.branch_end is not None:
        return 'its channels end in a sum, which needs all of them'
    alone = lone_depthwise(
        network, site.producer, [member.path for member in site.consumers]
    )
    if alone is not None:
        return f'{alone} is a depthwise conv with a gate of its own'
    members = (*site.consumers, *site.outputs)
    if any(member.positions is not None for member in members):
        return 'its channels lie among others (concatenated or flattened)'
    for member in members:
        layer = network.get_submodule(member.path)
        if not isinstance(layer, DynamicLayer):
            return f'{member.path} is a {type(layer).__name__}'
        if isinstance(layer, DynamicConv) and not (
            layer.groups == 1 or is_depthwise(layer)
        ):
            return f'{member.path} has {layer.groups} groups'
    return ''


def _reasons(ports: Ports) -> dict[str, str]:
    """Why sites stay masked, so far."""
    return {
        port.site.name: port.why
        for port in ports
        if isinstance(port, WideningPort)
    }


def _obey(dynamic: DynamicImageClassifier, reasons: dict[str, str]) -> None:
    """Do as the stored plan says, but for what cannot be done."""
    plan = dynamic.plan
    backbone = dynamic.backbone
    backbone.batch = plan.batch
    backbone.keep_alone(plan.alone)
    for port in backbone.dynamic_ports:
        port.compact &= plan.sites[port.site.name].executed != DENSE
    for name, why in reasons.items():
        plan.sites[name] = SiteReport(DENSE, why)
    for path, name in plan.engines.items():
        layer = _layer(backbone.backbone, path)
        if layer is not None and layer.engine_name == 'kernel':
            layer.dense_engine = name
    backbone.executor = plan.executor


def _layer(network: nn.Module, path: str) -> DynamicConv | None:
    layer = dict(network.named_modules()).get(path)
    return layer if isinstance(layer, DynamicConv) else None


def _left_alone(
    model: GatedImageClassifier,
    images: Tensor | None,
    plan: DynamicPlan | None,
) -> DynamicImageClassifier:
    """On an accelerator: masked as it was, and the report says so."""
    twin = evaluating_copy(model)
    device = next(model.parameters()).device
    shape = plan.image_shape if images is None else tuple(images.shape[1:])
    dynamic = DynamicImageClassifier(
        model,
        DynamicBackbone(twin.backbone, twin.backbone._ports),
        twin.neck,
        twin.head,
        twin.data_preprocessor,
    )
    dynamic.backbone.executor = MODULES
    why = f'the model is on {device}: channels are skipped on the CPU only'
    dynamic.plan = DynamicPlan(
        shape,
        torch.get_num_threads(),
        'none',
        {site.name: SiteReport(DENSE, why) for site in twin.backbone.sites},
        executor=MODULES,
        executor_why=why,
    )
    return dynamic
