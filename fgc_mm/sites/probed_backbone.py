"""A backbone whose conv and linear layers are replaced for probing."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from fgc_mm.errors import FGCError
from fgc_mm.sites.call import tensors
from fgc_mm.sites.eval_mode import eval_mode
from fgc_mm.sites.layer_channels import (
    is_depthwise,
    kernel_elements,
    mixes_channels,
)
from fgc_mm.sites.work_limit import WorkLimit


class Visitor(ABC):
    """Callbacks of one pass through a :class:`ProbedBackbone`."""

    @abstractmethod
    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """Output of a layer that mixes channels, for its input ``x``."""

    def after_module(
        self, name: str, module: nn.Module, output: Tensor
    ) -> Tensor | None:
        """Called with another module's output; may return a new output."""
        return None

    def run_module(
        self, name: str, run: Callable[[], Any], inputs: Any
    ) -> Any:
        """Output of a module that contains such layers, run or cached."""
        return run()


class ProbedBackbone:
    """A backbone in which a visitor provides the outputs of layers.

    These layers are all conv and linear layers except depthwise convs. They
    are not computed, only the operations between them, so a pass is cheap
    even in a large network. In a ``with`` block the backbone is in evaluation
    mode, and all parameters outside these layers (norms, layer scales,
    depthwise convs) are random and of order 1, so that for example a norm
    initialised to zero does not block a signal. Everything is restored
    afterwards. Modules compiled by ``torch.jit`` run unchanged.

    Args:
        backbone: The network.
        work: Counts the computed elements and stops at a limit.
    """

    def __init__(
        self, backbone: nn.Module, work: WorkLimit | None = None
    ) -> None:
        self.backbone = backbone
        self.work = work or WorkLimit()
        self._stack = ExitStack()
        self._visitor: Visitor
        self._running: list[str] = []

    def __enter__(self) -> 'ProbedBackbone':
        _check_parameters(self.backbone)
        with ExitStack() as stack:
            stack.enter_context(eval_mode(self.backbone))
            stack.enter_context(_random_parameters(self.backbone))
            for name, module in self.backbone.named_modules():
                if not isinstance(module, ScriptModule):
                    self._install_hooks(stack, name, module)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def run(self, images: Tensor, visitor: Visitor) -> list[Tensor]:
        """All tensors of the backbone's output for images (N, C, H, W).

        Raises:
            FGCError: The backbone fails on such images; the message names
                the module.
        """
        self._visitor = visitor
        self._running.clear()
        try:
            with torch.no_grad(), _fixed_seed(images.device):
                outputs = self.backbone(images)
        except FGCError:
            raise
        except Exception as error:
            raise FGCError(self._failure_message(images, error)) from error
        found = tensors(outputs)
        if not found:
            raise FGCError(
                f'{type(self.backbone).__name__} returns '
                f'{type(outputs).__name__}, which contains no tensor; it must '
                'return a tensor, or a tuple, list or dict of tensors.'
            )
        return found

    def _install_hooks(
        self, stack: ExitStack, name: str, module: nn.Module
    ) -> None:
        def enter(*_: Any) -> None:
            self._running.append(name)

        def after_forward(_: nn.Module, __: Any, output: Any) -> Any:
            self._running.pop()
            self.work.add(output)
            if mixes_channels(module) or not isinstance(output, Tensor):
                return None
            return self._visitor.after_module(name, module, output)

        def layer_output(x: Any = None, /, **options: Any) -> Tensor:
            self._refuse_keywords(name, options)
            return self._visitor.layer_output(name, module, x)

        def run_or_cached(*args: Any, **options: Any) -> Any:
            run = partial(own, *args, **options)
            return self._visitor.run_module(name, run, (args, options))

        own = module.forward
        if mixes_channels(module):
            _replace_forward(stack, module, layer_output)
        elif name and any(map(mixes_channels, module.modules())):
            _replace_forward(stack, module, run_or_cached)
        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(after_forward).remove)

    def varying_layer(self, name: str, images: Tensor) -> str:
        """The error for a layer that runs for some images only."""
        return (
            f'{name} of {type(self.backbone).__name__} runs for some images '
            f'of size {_size(images)} and not for others, but gates need a '
            'network that runs the same layers for every image; choose '
            'another backbone.'
        )

    def _refuse_keywords(self, name: str, given: Mapping[str, Any]) -> None:
        if given:
            raise FGCError(
                f'{name} of {type(self.backbone).__name__} is called with '
                f'{", ".join(given)}=..., but gates mask the first positional '
                'argument of a layer; write layer(x).'
            )

    def _failure_message(self, images: Tensor, error: Exception) -> str:
        running = self._running[-1] if self._running else ''
        if running and _missing_module(error) == running:
            return self.varying_layer(running, images)
        where = ''.join(f' in {name}' for name in self._running[-1:] if name)
        if operator := _compiled_operator(error):
            return (
                f'{type(self.backbone).__name__} calls torch.{operator}'
                f'{where}, which torch compiles, so the network cannot be '
                'probed for sites; write it with torch.where or in Python.'
            )
        text = str(error).strip() or type(error).__name__
        return (
            f'{type(self.backbone).__name__} fails on an image of size '
            f'{_size(images)}{where} ({text.splitlines()[-1]}); it must take '
            'a batch of images as its only argument; if the images must have '
            "a certain size, set it: sites=dict(type='auto', image_size=...)."
        )


def _size(images: Tensor) -> str:
    return 'x'.join(map(str, images.shape[1:]))


def _missing_module(error: Exception) -> str | None:
    """The module that did not run in an earlier pass, if this is the error."""
    if not isinstance(error, KeyError) or not error.args:
        return None
    return getattr(error.args[0], 'path', error.args[0])


def _compiled_operator(error: Exception) -> str | None:
    """The operator of control flow (torch.cond, ...) that raised an error."""
    for frame, _ in walk_tb(error.__traceback__):
        module = frame.f_globals.get('__name__', '')
        if module.startswith('torch._higher_order_ops.'):
            return frame.f_code.co_name
    return None


def output_shape(layer: nn.Module, x: Tensor) -> torch.Size:
    """The shape of a layer's output, computed on the meta device.

    A layer whose forward needs values or other modules, for example to
    compute its weight, is run instead.
    """
    if not layer._modules:
        with suppress(Exception):  # whatever the layer's code raises
            return type(layer).forward(_on_meta(layer), x.to('meta')).shape
    return run_layer(layer, x).shape


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """The output of a layer whose ``forward`` has been replaced."""
    return type(layer).forward(layer, x)


def _on_meta(layer: nn.Module) -> nn.Module:
    """A copy with its parameters and buffers on the meta device."""
    meta_copy = copy.copy(layer)
    for group in ('_parameters', '_buffers'):
        meta_copy.__dict__[group] = {
            name: None if value is None else value.to('meta')
            for name, value in getattr(layer, group).items()
        }
    return meta_copy


def _replace_forward(
    stack: ExitStack, module: nn.Module, forward: Callable
) -> None:
    if 'forward' in module.__dict__:  # replaced on the instance already
        stack.callback(setattr, module, 'forward', module.forward)
    stack.callback(module.__dict__.pop, 'forward')
    module.forward = forward


def _check_parameters(backbone: nn.Module) -> None:
    kind = type(backbone).__name__
    # torch.compile stores the network that it has compiled as _orig_mod
    if isinstance(backbone, ScriptModule) or hasattr(backbone, '_orig_mod'):
        raise FGCError(
            f'{kind} is a compiled network, but gates are attached to layers '
            'that run in Python; give the network before it is compiled.'
        )
    parameters = list(backbone.parameters())
    if not parameters:
        raise FGCError(
            f'{kind} has no parameters, so there is nothing to gate; choose '
            'another backbone.'
        )
    if any(is_lazy(p) or p.is_meta for p in parameters):
        raise FGCError(
            f'{kind} has uninitialised parameters (of a lazy layer, or on '
            'the meta device); run it once, or build it on the CPU.'
        )


@contextmanager
def _fixed_seed(device: torch.device) -> Iterator[None]:
    """Run with a fixed seed, since some networks draw random numbers in eval.

    Does not use ``torch.manual_seed``, which would reseed all devices.
    """
    cuda = [device] if device.type == 'cuda' else []
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(0)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


@contextmanager
def _random_parameters(backbone: nn.Module) -> Iterator[None]:
    """Temporary random parameters of order 1 outside the visited layers."""
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        for module in backbone.modules():
            state = dict(module.named_parameters(recurse=False))
            if mixes_channels(module):  # only all-zero parameters matter here
                state = {k: v for k, v in state.items() if not v.any()}
            for name in ('running_mean', 'running_var'):
                if isinstance(getattr(module, name, None), Tensor):
                    state[name] = getattr(module, name)
            for name, tensor in state.items():
                values = torch.rand(tensor.shape, generator=generator)
                values = values * 0.5 + 0.5
                if name in ('bias', 'running_mean'):
                    values.zero_()
                elif is_depthwise(module):
                    values /= kernel_elements(module)
                stack.callback(setattr, tensor, 'data', tensor.data)
                tensor.data = values.to(tensor)
        yield
