"""The gates of a backbone, which keep their own initialisation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class GateDict(nn.ModuleDict):
    """Gates by the keys of their sites.

    An ``init_cfg`` of a module around the gates is applied to all layers of
    a kind, those of gates included, whose initialisation is that of their
    config (``weight_init``). ``BaseModule.init_weights`` calls that of its
    children after it has applied such an ``init_cfg``, and before it loads
    pretrained weights, which do replace the values of gates.

    Args:
        gates: The gates.
    """

    def __init__(self, gates: Mapping[str, nn.Module]) -> None:
        super().__init__(gates)
        self._initial: dict[str, Tensor] = {
            name: value.clone()
            for name, value in self.state_dict().items()
            if isinstance(value, Tensor)  # not the state of another kind
        }
        self._register_load_state_dict_pre_hook(self._keep_loaded)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Restores the values from before ``init_weights`` of the model."""
        initial, self._initial = self._initial, {}
        for name, value in self.state_dict().items():
            if name in initial and not initial[name].is_meta:
                value.copy_(initial[name])

    def _keep_loaded(
        self, state_dict: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            self._initial = {}
