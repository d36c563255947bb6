"""The weight initialisation of the published code of FGC."""

from collections.abc import Sequence

from mmengine.model import update_init_info
from torch import nn

from fgc_mm.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class KaimingWeights:
    """He-normal weights (fan in, gain sqrt 2); biases are not changed.

    mmengine's ``Kaiming`` also sets biases to a constant. The published code
    of FGC applies this to every conv and linear layer, the classifier
    included. Source: He et al., "Delving deep into rectifiers" (ICCV 2015),
    equation 10.

    Args:
        layer: Class names of the layers, such as ``['Conv2d', 'Linear']``.
    """

    def __init__(self, layer: str | Sequence[str]) -> None:
        self.layers = (layer,) if isinstance(layer, str) else tuple(layer)

    def __call__(self, module: nn.Module) -> None:
        """Initialise the layers of a module."""
        for part in module.modules():
            if type(part).__name__ in self.layers:
                nn.init.kaiming_normal_(part.get_parameter('weight'))
        if hasattr(module, '_params_init_info'):
            layers = ', '.join(self.layers)
            update_init_info(module, init_info=f'KaimingWeights of {layers}')
