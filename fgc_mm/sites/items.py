"""How many items of a batch the layers of a network see."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fgc_mm.sites.cut import output_shape


class Items:
    """A visitor that notes which layers see one item per image.

    Attributes:
        sizes: Items that every dense layer was seen to read and write.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, set[int]] = {}

    def answer(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """Zeros in the right shape."""
        output = x.new_zeros(output_shape(layer, x))
        self.sizes.setdefault(name, set()).update((len(x), len(output)))
        return output

    def enter(self, name: str, run: Callable[[], Any], inputs: Any) -> Any:
        """Run it."""
        return run()

    def visit(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Nothing to note."""
