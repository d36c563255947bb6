"""Finding layers that were replaced after the network was wrapped."""

from torch import nn

from fgc_mm.sites.gate_hooks import GateHooks


def replaced_consumer(hooks: GateHooks, network: nn.Module) -> str | None:
    """Path of a consumer that may read closed channels, or ``None``.

    A wrapper of the hooked layer (FSDP, gradient checkpointing) is no
    replacement, unless it has further layers (LoRA), which may read the input
    without the mask.

    Args:
        hooks: The hooks of one site.
        network: The wrapped network as it is now.
    """
    for consumer in hooks.site.consumers:
        module = _find(network, consumer.path)
        if module is None or hooks.is_attached(module):
            continue
        hooked = [x for x in module.modules() if hooks.is_attached(x)]
        masked = {part for layer in hooked for part in layer.modules()}
        others = (x for x in module.modules() if x not in masked)
        if not hooked or any(x._parameters for x in others):
            return consumer.path
    return None


def _find(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:  # it was removed, so it cannot run
        return None
