"""Finding layers that were replaced after the network was wrapped."""

from torch import nn

from fgc_mm.sites.gate_hooks import GateHooks
from fgc_mm.sites.layer_channels import CONV_OR_LINEAR


def replaced_consumer(hooks: GateHooks, network: nn.Module) -> str | None:
    """Path of a consumer that would read closed channels, or ``None``.

    A wrapper of the hooked layer (FSDP, gradient checkpointing) is no
    replacement, unless it has further layers (LoRA).

    Args:
        hooks: The hooks of one site.
        network: The wrapped network as it is now.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    for consumer in hooks.site.consumers:
        module = modules.get(consumer.path)
        if module is None or hooks.is_attached(module):
            continue
        layers = [x for x in module.modules() if isinstance(x, CONV_OR_LINEAR)]
        if not layers or not all(map(hooks.is_attached, layers)):
            return consumer.path
    return None
