"""Merging partial gates into plain ones, which a fused gate can replace."""

import torch
from torch import nn

from fgc_mm.deploy.copying import copied
from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.gates import BinaryConcreteGate, GroupedGate, PartialGate


@torch.no_grad()
def merged(model: nn.Module) -> nn.Module:
    """A copy of a model whose partial gates cover all channels.

    The logit of a fixed channel becomes a large constant. The decisions stay
    the same; it costs some MACs but saves several small operations per site,
    and dynamic execution runs such a gate in one call.

    Args:
        model: A compact classifier, or its backbone.
    """
    model = copied(model)
    backbone = gated_backbone(model)
    for hooks in backbone._site_hooks:
        whole = _merged(hooks.gate, hooks.site.in_channels)
        if whole is not None:
            hooks.gate = backbone.gates[hooks.site.key] = whole
    return model


def _merged(gate: nn.Module, in_channels: int) -> nn.Module | None:
    """None if nothing can be merged (another kind of inner gate)."""
    inner = getattr(gate, 'gate', None)
    if isinstance(gate, GroupedGate):
        whole = _merged(inner, in_channels)
        return whole and GroupedGate(whole, gate.sizes).eval()
    if type(gate) is not PartialGate or type(inner) is not BinaryConcreteGate:
        return None
    rows = gate.sources()
    hidden = inner.expand.in_features
    whole = BinaryConcreteGate(in_channels, len(rows), hidden)
    whole.threshold = inner.threshold
    whole.temperatures, whole.noises = inner.temperatures, inner.noises
    whole.squeeze, whole.norm = inner.squeeze, inner.norm
    weight, bias = inner.expand.weight, inner.expand.bias
    fixed = weight.new_zeros(2, hidden)
    certain = bias.new_tensor(gate.certain())
    whole.expand.weight.copy_(torch.cat([weight, fixed])[rows])
    whole.expand.bias.copy_(torch.cat([bias, certain])[rows])
    return whole.eval()
