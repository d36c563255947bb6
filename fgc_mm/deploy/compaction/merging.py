"""Merging partial gates into plain ones, which a fused gate can replace."""

from typing import Any

import torch
from torch import nn

from fgc_mm.deploy.copying import copy_network
from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.gates import BinaryConcreteGate, GroupedGate, PartialGate
from fgc_mm.gates.partial import FIXED_LOGITS


@torch.no_grad()
def merge_partial_gates(model: nn.Module) -> nn.Module:
    """A copy of a model whose partial gates cover all channels.

    The logit of a fixed channel becomes a large constant, and the decisions
    stay the same. This costs some MACs, but saves several small operations
    per site, and dynamic execution runs such a gate in one call.

    Args:
        model: A compact classifier, or its backbone.
    """
    model = copy_network(model)
    backbone = gated_backbone(model)
    for hooks in backbone._site_hooks:
        merged_gate = _merged_gate(hooks.gate, hooks.site.in_channels)
        if merged_gate is not None:
            hooks.gate = backbone.gates[hooks.site.key] = merged_gate
    return model


def _merged_gate(gate: Any, in_channels: int) -> nn.Module | None:
    """None if nothing can be merged (another kind of inner gate)."""
    inner = getattr(gate, 'gate', None)
    if isinstance(gate, GroupedGate):
        merged_gate = _merged_gate(inner, in_channels)
        return merged_gate and GroupedGate(merged_gate, gate.sizes).eval()
    if type(gate) is not PartialGate or type(inner) is not BinaryConcreteGate:
        return None
    rows = gate.output_index
    hidden = inner.expand.in_features
    merged_gate = BinaryConcreteGate(in_channels, len(rows), hidden)
    merged_gate.threshold = inner.threshold
    merged_gate.temperatures, merged_gate.noises = (
        inner.temperatures,
        inner.noises,
    )
    merged_gate.squeeze, merged_gate.norm = inner.squeeze, inner.norm
    weight, bias = inner.expand.weight, inner.expand.bias
    fixed = weight.new_zeros(2, hidden)
    fixed_logits = bias.new_tensor(FIXED_LOGITS)
    merged_gate.expand.weight.copy_(torch.cat([weight, fixed])[rows])
    merged_gate.expand.bias.copy_(torch.cat([bias, fixed_logits])[rows])
    return merged_gate.eval()
