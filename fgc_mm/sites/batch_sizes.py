"""Batch sizes of the inputs and outputs of a network's layers."""

from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.probed_backbone import (
    ProbedBackbone,
    Visitor,
    output_shape,
    run_layer,
)


def batch_sizes(probed: ProbedBackbone, images: Tensor) -> dict[str, set[int]]:
    """Batch sizes of the inputs and outputs of every conv and linear layer.

    The layers' outputs are zeros, which takes little time; if the network
    fails on zeros, the outputs are computed.

    Raises:
        FGCError: The network fails on such images.
    """
    try:
        visitor = _BatchSizes(computed=False)
        probed.run(images, visitor)
    except FGCError:
        visitor = _BatchSizes(computed=True)
        probed.run(images, visitor)
    return visitor.sizes


class _BatchSizes(Visitor):
    """Records the batch sizes of conv and linear layers."""

    def __init__(self, computed: bool) -> None:
        self._computed = computed
        self.sizes: dict[str, set[int]] = {}

    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """The output, or zeros of its shape."""
        if self._computed:
            output = run_layer(layer, x)
        else:
            output = x.new_zeros(output_shape(layer, x))
        self.sizes.setdefault(name, set()).update((len(x), len(output)))
        return output
