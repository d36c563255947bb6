"""The MACs table of a gated classifier, from one forward pass."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from fgc_mm.functional.macs import LayerMACs, MACsTable
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.sites.evaluating import evaluating
from fgc_mm.sites.layout import DENSE, is_depthwise, layer_widths, pair_macs


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
    inputs, outputs, gates = defaultdict(list), defaultdict(list), set()
    readers = {member.path for site in sites for member in site.consumers}
    for index, site in enumerate(sites):
        for output in site.outputs:
            layer = gated.backbone.get_submodule(output.path)
            outputs[id(layer)].append((index, output.positions))
            # one that reads another site is closed there by that one
            if is_depthwise(layer) and output.path not in readers:
                inputs[id(layer)].append((index, output.positions))
        for consumer in site.consumers:
            layer = gated.backbone.get_submodule(consumer.path)
            inputs[id(layer)].append((index, consumer.positions))
        gates.update(map(id, gated.gates[site.key].modules()))
    layers = [
        LayerMACs(
            names[id(module)],
            _role(id(module), names[id(module)], gates),
            unit,
            *layer_widths(module),
            in_sites=tuple(inputs[id(module)]),
            out_sites=tuple(outputs[id(module)]),
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


def _run_and_count(
    model: nn.Module, image_shape: tuple[int, ...]
) -> list[tuple[nn.Module, int]]:
    units: list[tuple[nn.Module, int]] = []

    def count(module: nn.Module, _: tuple, output: Tensor) -> None:
        units.append((module, pair_macs(module, output.shape)))

    hooks = [
        m.register_forward_hook(count)
        for m in model.modules()
        if isinstance(m, DENSE)
    ]
    like = next(model.parameters())
    try:
        # a graph compiled before does not know of the hooks
        eager = torch.compiler.set_stance('force_eager')
        with evaluating(model), torch.no_grad(), eager:
            model(like.new_zeros(1, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return units
