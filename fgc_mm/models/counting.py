"""The MACs table of a classifier, from one forward pass."""

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import nn

from fgc_mm.functional.macs import LayerMACs, MACsTable
from fgc_mm.models.channel_map import ChannelMap
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.models.layer_products import run_and_record
from fgc_mm.sites import GateSite
from fgc_mm.sites.layer_channels import is_depthwise
from fgc_mm.sites.site import gate_key

Sites = dict[str, list[tuple[int, tuple[int, ...] | None]]]


def build_macs_table(
    model: nn.Module, image_shape: tuple[int, ...]
) -> MACsTable:
    """Count every tensor product that one image needs.

    The products are observed where torch computes them
    (:mod:`fgc_mm.sites.watch_products`), so convs, linear layers, functional
    calls and the two products of attention are all included. Only those of a
    conv or linear layer in its own forward can be scaled by sites, since a
    site masks the inputs of its consumers. All others are dense.

    Args:
        model: A classifier whose ``backbone`` is a :class:`GatedBackbone`,
            or any other module.
        image_shape: (C, H, W).

    Returns:
        The table; its dense MACs are those with every gate open.
    """
    names = {id(module): name for name, module in model.named_modules()}
    gated: Any = getattr(model, 'backbone', None)
    sites = gated.sites if isinstance(gated, GatedBackbone) else []
    inputs, outputs = _sites_of_layers(gated, sites, names)
    whole = _before_compaction(gated, names)
    gates = {
        names[id(module)]
        for site in sites
        for module in gated.gates[site.key].modules()
    }

    def role_of(path: str) -> str:
        if path in gates:
            return 'gate'
        return 'backbone' if path.split('.')[0] == 'backbone' else 'head'

    def with_sites(layer: LayerMACs) -> LayerMACs:
        if layer.source != 'layer':
            return layer
        before = None
        if layer.name in whole:
            writes, reads, groups = whole[layer.name]
            before = layer.unit * reads * writes // groups
        return replace(
            layer,
            in_sites=tuple(inputs[layer.name]),
            out_sites=tuple(outputs[layer.name]),
            before=before,
        )

    # so that a dynamic backbone runs its modules instead of a program
    with getattr(gated, 'as_modules', nullcontext)():
        layers = run_and_record(model, image_shape, role_of)
    return MACsTable(
        tuple(map(with_sites, layers)),
        tuple(site.name for site in sites),
        tuple(site.channels for site in sites),
        tuple(site.group_sizes for site in sites),
    )


def gate_macs(table: MACsTable, site: str) -> int:
    """MACs of the gate of a site, by the site's name."""
    start = f'backbone.gates.{gate_key(site)}.'
    return sum(x.dense for x in table.layers if f'{x.name}.'.startswith(start))


def _sites_of_layers(
    gated: Any, sites: list[GateSite], names: dict[int, str]
) -> tuple[Sites, Sites]:
    """Sites that scale a layer's inputs, and its outputs, by its path."""
    inputs, outputs = defaultdict(list), defaultdict(list)
    readers = {member.path for site in sites for member in site.consumers}
    for index, site in enumerate(sites):
        for output in site.outputs:
            layer = gated.backbone.get_submodule(output.path)
            outputs[names[id(layer)]].append((index, output.positions))
            # the inputs of a site's consumer are scaled by that site
            if is_depthwise(layer) and output.path not in readers:
                inputs[names[id(layer)]].append((index, output.positions))
        for consumer in site.consumers:
            layer = gated.backbone.get_submodule(consumer.path)
            inputs[names[id(layer)]].append((index, consumer.positions))
    return inputs, outputs


def _before_compaction(
    backbone: nn.Module | None, names: dict[int, str]
) -> dict[str, tuple[int, ...]]:
    """Widths (out, in, groups) of the layers that a channel map shrank."""
    network: Any = backbone
    if isinstance(network, GatedBackbone):
        network = network.backbone
    widths: dict[str, tuple[int, ...]] = {}
    for channel_map in ChannelMap.applied_to(network):
        for path, kept in channel_map.layers.items():
            if kept.dense:  # the first map has the original widths
                name = names[id(network.get_submodule(path))]
                widths.setdefault(name, kept.widths)
    return widths
