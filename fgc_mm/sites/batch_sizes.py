"""Batch sizes of the inputs and outputs of a network's layers."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fgc_mm.sites.probed_backbone import output_shape


class BatchSizes:
    """A visitor that records the batch sizes of conv and linear layers.

    Attributes:
        sizes: Batch sizes of the inputs and outputs of every such layer.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, set[int]] = {}

    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """Zeros of the right shape."""
        output = x.new_zeros(output_shape(layer, x))
        self.sizes.setdefault(name, set()).update((len(x), len(output)))
        return output

    def run_module(
        self, name: str, run: Callable[[], Any], inputs: Any
    ) -> Any:
        """Run the module."""
        return run()

    def after_module(
        self, name: str, module: nn.Module, output: Tensor
    ) -> None:
        """Do nothing."""
