"""Comparing a compact network with the masked one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.gates import GateDecision
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.models.layer_slice import LayerSlice


@contextmanager
def fixed_decisions(
    backbone: GatedBackbone, channel_map: ChannelMap
) -> Iterator[None]:
    """Run the masked network with the decisions that a channel map fixes.

    Channels that it removes or closes are closed; those that are no longer
    gated are open, whatever their gates decide.

    Args:
        backbone: The whole gated network.
        channel_map: Made for it.
    """
    hooks = [
        backbone.gates[site.key].register_forward_hook(
            partial(_fix_decision, channel_map.sites[site.name])
        )
        for site in backbone.sites
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fix_decision(
    entry: SiteChannels, _: nn.Module, args: Any, decision: GateDecision
) -> GateDecision:
    del args
    opened = set(entry.kept) - set(entry.gated) - set(entry.closed)
    mask = torch.zeros_like(decision.mask)
    mask[:, sorted(opened)] = 1
    gated = list(entry.gated)
    mask[:, gated] = decision.mask[:, gated]
    return decision._replace(mask=mask)


@contextmanager
def override_masks(
    small: nn.Module, channel_map: ChannelMap, masks: dict[str, Tensor]
) -> Iterator[None]:
    """Run the small network with the masks of the whole one.

    Args:
        small: With gates, or without any.
        channel_map: What remains of the whole one.
        masks: Of the whole network's sites, (N, C) each.
    """
    gated: Any = small
    sites = small.sites if isinstance(small, GatedBackbone) else ()
    hooks = [
        gated.gates[site.key].register_forward_hook(
            partial(
                _override,
                masks[site.name][:, channel_map.sites[site.name].kept],
            )
        )
        for site in sites
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _override(
    mask: Tensor, _: nn.Module, args: Any, decision: GateDecision
) -> GateDecision:
    del args
    return decision._replace(mask=mask)


def same_decisions(
    whole: nn.Module,
    small: nn.Module,
    in_channels: int,
    producer: LayerSlice | None,
    entry: SiteChannels,
) -> bool:
    """Whether a small gate decides like the whole one for its channels.

    Args:
        whole: The whole gate.
        small: The gate with fewer channels.
        in_channels: Input channels of the whole gate.
        producer: What remains of the layer whose input they read.
        entry: What remains of the site.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, in_channels, 2, 2, generator=generator)
    x = x.to(next(whole.parameters()))
    reads = list(producer.inputs) if producer else [*range(in_channels)]
    zeros = torch.zeros_like(x)
    zeros[:, reads] = x[:, reads]
    wanted, got = whole(zeros), small(x[:, reads])
    indices = [entry.kept.index(channel) for channel in entry.gated]
    gated = list(entry.gated)
    alike = torch.isclose(
        wanted.mask[:, gated].float(),
        got.mask[:, indices].float(),  # float32 without any gate left
        rtol=1e-3,
        atol=1e-5,
    )
    # rounding may change the sign of a few logits
    return gated == [] or float(alike.float().mean()) > 0.99


def flatten_outputs(outputs: Any) -> list[Tensor]:
    """All tensors of a backbone's outputs."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flatten_outputs(part)]


def largest_gap(wanted: Any, got: Any) -> float:
    """Largest difference relative to the largest value; inf if shapes differ.

    Args:
        wanted: Outputs of a backbone.
        got: Outputs of another.
    """
    pairs = list(
        zip(flatten_outputs(wanted), flatten_outputs(got), strict=True)
    )
    if any(a.shape != b.shape for a, b in pairs):
        return float('inf')
    scale = max(float(a.abs().max()) for a, _ in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / max(scale, 1e-9)


class CloseChannels:
    """Closes channels of one site of a plain network in a ``with`` block.

    Args:
        network: The plain network.
        readers: For each layer that reads the channels, which of its input
            channels to keep; (C_in,) bool.
    """

    def __init__(self, network: nn.Module, readers: dict[str, Tensor]) -> None:
        self._network = network
        self._readers = readers
        self._hooks: Sequence = ()

    def __enter__(self) -> 'CloseChannels':
        self._hooks = [
            self._network.get_submodule(path).register_forward_pre_hook(
                partial(_close, kept)
            )
            for path, kept in self._readers.items()
        ]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()


def _close(kept: Tensor, layer: nn.Module, args: tuple) -> tuple:
    x = args[0]
    if isinstance(layer, nn.Linear):
        return (x * kept.to(x), *args[1:])
    return (x * kept.to(x).reshape(-1, *[1] * (x.dim() - 2)), *args[1:])
