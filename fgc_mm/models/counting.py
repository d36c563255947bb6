"""The MACs table of a gated classifier, from one forward pass."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from fgc_mm.functional.macs import LayerMACs, MACsTable
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.sites.evaluating import evaluating

COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def build_macs_table(
    model: nn.Module, image_shape: tuple[int, ...]
) -> MACsTable:
    """Count every conv and linear layer that one image runs through.

    Args:
        model: A classifier whose ``backbone`` is a :class:`GatedBackbone`,
            or any other.
        image_shape: (3, H, W).

    Returns:
        The table; its dense MACs are those with every gate open.
    """
    units = _run_and_count(model, image_shape)
    names = {id(m): name for name, m in model.named_modules()}
    gated = getattr(model, 'backbone', None)
    sites = gated.sites if isinstance(gated, GatedBackbone) else []
    outputs, inputs, gates = {}, defaultdict(list), set()
    for index, site in enumerate(sites):
        for path in site.outputs:
            layer = gated.backbone.get_submodule(path)
            outputs[id(layer)] = index
            if path != site.producer and getattr(layer, 'groups', 1) > 1:
                inputs[id(layer)].append((index, None))  # depthwise
        for consumer in site.consumers:
            layer = gated.backbone.get_submodule(consumer.path)
            inputs[id(layer)].append((index, consumer.positions))
        gates.update(map(id, gated.gates[site.key].modules()))
    layers = [
        LayerMACs(
            names[id(module)],
            _role(id(module), names[id(module)], gates),
            unit,
            *_channels(module),
            in_sites=tuple(inputs[id(module)]),
            out_site=outputs.get(id(module)),
        )
        for module, unit in units
    ]
    return MACsTable(
        tuple(layers),
        tuple(site.name for site in sites),
        tuple(site.channels for site in sites),
    )


def _role(module: int, name: str, gates: set[int]) -> str:
    if module in gates:
        return 'gate'
    return 'backbone' if name.startswith('backbone.') else 'head'


def _channels(module: nn.Module) -> tuple[int, int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, 1
    return module.in_channels, module.out_channels, module.groups


def _run_and_count(
    model: nn.Module, image_shape: tuple[int, ...]
) -> list[tuple[nn.Module, int]]:
    units: list[tuple[nn.Module, int]] = []

    def count(module: nn.Module, _: tuple, output: Tensor) -> None:
        units.append((module, _unit(module, output)))

    hooks = [
        m.register_forward_hook(count)
        for m in model.modules()
        if isinstance(m, COUNTED)
    ]
    like = next(model.parameters())
    try:
        with evaluating(model), torch.no_grad():
            model(like.new_zeros(1, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return units


def _unit(module: nn.Module, output: Tensor) -> int:
    """MACs of one pair of channels: kernel elements x output positions."""
    if isinstance(module, nn.Linear):
        return output[0, ..., 0].numel()
    return module.weight[0, 0].numel() * output[0, 0].numel()
