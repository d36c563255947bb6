"""Tensor products of one forward pass, assigned to layers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy

from fgc_mm.functional.macs import LayerMACs
from fgc_mm.functional.products import Product
from fgc_mm.sites.eval_mode import eval_mode
from fgc_mm.sites.layer_channels import layer_widths
from fgc_mm.sites.watch_products import watch_products

TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
LAYERS = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED


def run_and_record(
    model: nn.Module,
    image_shape: tuple[int, ...],
    role_of: Callable[[str], str],
) -> list[LayerMACs]:
    """Run one black image, and list its products in order, without sites.

    The model runs in evaluation mode and is restored. ``role_of`` gives the
    role of a module, by its path.
    """
    like = next(model.parameters())
    recorder = _Recorder(model, role_of)
    # compiled graphs would not call the hooks
    eager = torch.compiler.set_stance('force_eager')
    with eval_mode(model), torch.no_grad(), eager:
        image = like.new_zeros(1, *image_shape)
        with recorder.track_calls(), watch_products(recorder.record):
            model(image)
    return recorder.products


class _Recorder:
    """Tracks the running modules of this thread and the parameters' owners.

    A product belongs to a layer if the layer's own forward computes it: the
    layer is the innermost running module and has the product's widths (also
    if its weight is computed, as by weight_norm). Otherwise the product is
    assigned to a factor that is a parameter, or a slice of one.
    """

    def __init__(
        self, model: nn.Module, role_of: Callable[[str], str]
    ) -> None:
        self.products: list[LayerMACs] = []
        self._role_of = role_of
        self._names = {id(m): name for name, m in model.named_modules()}
        self._running: list[nn.Module] = [model]
        self._found: list[bool] = [False]
        self._owners: dict[int, tuple[str, str]] = {}
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not is_lazy(parameter):
                    key = _storage(parameter)
                    self._owners.setdefault(key, (path, name))

    @contextmanager
    def track_calls(self) -> Iterator[None]:
        """Track calls of all modules on this thread, with global hooks."""
        thread = threading.get_ident()

        def enter(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread and id(module) in self._names:
                self._running.append(module)
                self._found.append(False)

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            if threading.get_ident() == thread and id(module) in self._names:
                self._running.pop()
                self._found.pop()

        hooks = (
            torch_module.register_module_forward_pre_hook(enter),
            torch_module.register_module_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def record(self, product: Product) -> None:
        """Record a product."""
        name, module, source = self._owner_of(product)
        sizes = product.in_channels, product.out_channels, product.groups
        role = self._role_of(module)
        self.products.append(
            LayerMACs(name, role, product.unit, *sizes, source=source)
        )

    def _owner_of(self, product: Product) -> tuple[str, str, str]:
        """Name of the product, path of the module, and source."""
        layer = self._running[-1]
        path = self._names[id(layer)]
        sizes = product.in_channels, product.out_channels, product.groups
        own = isinstance(layer, LAYERS) and layer_widths(layer) == sizes
        if own and not self._found[-1]:
            self._found[-1] = True
            return path, path, 'layer'
        for factor in reversed(product.factors):
            if _storage(factor) in self._owners:
                owner, name = self._owners[_storage(factor)]
                full = f'{owner}.{name}' if owner else name
                return full.removesuffix('.weight'), owner, 'parameter'
        return path or type(layer).__name__, path, 'tensors'


def _storage(tensor: Tensor) -> int:
    """An identifier shared by all views of the same memory."""
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:  # e.g. a sparse tensor
        return id(tensor)
