"""Norms into convs, activations into convs: where it is safe."""

from __future__ import annotations

from torch import Tensor, nn

from fgc_mm.deploy.dynamic.engines import Clamp, kernel_can
from fgc_mm.deploy.dynamic.layers import (
    DoneActivation,
    DynamicConv,
    FastMaxPool,
    dynamic_layer,
    is_plain,
)
from fgc_mm.deploy.dynamic.refold import FoldedConv, folded
from fgc_mm.deploy.dynamic.trace import UseTrace

CLAMPS: dict[type, Clamp] = {
    nn.ReLU: (0.0, float('inf')),
    nn.ReLU6: (0.0, 6.0),
}


def fold(
    network: nn.Module, images: Tensor, compiled: bool
) -> list[FoldedConv]:
    """Every conv becomes a :class:`DynamicConv`, with its norm inside.

    A norm is folded if it alone uses what the conv gives; an activation
    joins the conv if it comes first behind it, and does so in place or alone.

    Args:
        network: In evaluation; changed.
        images: (1, 3, H, W).
        compiled: The compiled kernel is there.

    Returns:
        What was folded into what.
    """
    trace = UseTrace().run(network, images)
    paths = {module: path for path, module in network.named_modules()}
    swap: dict[int, nn.Module] = {}
    convs = []
    for conv in network.modules():
        if not is_plain(conv, nn.Conv2d) or not trace.outputs[id(conv)]:
            continue
        norm = trace.only_user(conv)
        norm = norm if _can_fold(norm) else None
        convs.append(FoldedConv.of(conv, norm, paths))
        last, weight, bias = conv, conv.weight.data, conv.bias
        if norm is not None:
            last = norm
            swap[id(norm)] = nn.Identity()
            weight, bias = folded(conv, norm)
        if bias is None:
            bias = weight.new_zeros(len(weight))
        layer = dynamic_layer(conv, weight, bias.detach().clone(), compiled)
        swap[id(conv)] = layer
        _join_activation(layer, trace, last, swap)
    for pool in network.modules():
        if compiled and FastMaxPool.can(pool):
            swap[id(pool)] = FastMaxPool(pool)
    replace_modules(network, swap)
    return convs


def replace_modules(network: nn.Module, swap: dict[int, nn.Module]) -> None:
    """Put modules in the places of others, shared ones everywhere."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in swap and swap[id(child)] is not parent:
                parent._modules[name] = swap[id(child)]


def _can_fold(norm: nn.Module | None) -> bool:
    return type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm) and (
        norm.running_mean is not None
    )


def _join_activation(
    layer: DynamicConv,
    trace: UseTrace,
    last: nn.Module,
    swap: dict[int, nn.Module],
) -> None:
    activation = trace.first_user(last)
    if type(activation) not in CLAMPS or not kernel_can(layer):
        return
    uses = trace.uses_of(last)
    if not activation.inplace and any(u is not activation for u in uses):
        return
    layer.clamp = CLAMPS[type(activation)]
    if id(activation) not in swap:
        swap[id(activation)] = DoneActivation(activation)
