"""The gates of a backbone, which keep their own initialisation."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class GateDict(nn.ModuleDict):
    """Gates by the keys of their sites.

    An ``init_cfg`` of a module around the gates is applied to all layers of
    a kind, and so to those of gates, whose initialisation is set by the gate's
    own config (``weight_init``). Their values are therefore restored:
    ``BaseModule.init_weights`` calls the method of its children after it has
    applied such an ``init_cfg``, and before it loads pretrained weights.
    """

    def __init__(self, gates: Mapping[str, nn.Module]) -> None:
        super().__init__(gates)
        self._initial = self._values()
        self.register_load_state_dict_post_hook(_keep_loaded)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Restores the values of the constructor, or those loaded since."""
        initial, self._initial = self._initial, {}
        for name, value in self.state_dict().items():
            if name in initial and not initial[name].is_meta:
                value.copy_(initial[name])

    def _values(self) -> dict[str, Tensor]:
        return {
            name: value.clone()
            for name, value in self.state_dict().items()
            if isinstance(value, Tensor)  # not the state of another kind
        }


def _keep_loaded(gates: GateDict, _: object) -> None:
    if gates._initial:  # init_weights was not called yet
        gates._initial = gates._values()
