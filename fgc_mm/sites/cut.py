"""A backbone cut at its dense layers."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from fgc_mm.errors import FGCError
from fgc_mm.sites.evaluating import evaluating
from fgc_mm.sites.layout import is_dense, is_depthwise
from fgc_mm.sites.work import Work


class Visitor(Protocol):
    """What happens in one pass through a :class:`CutNetwork`."""

    def answer(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """What a dense layer gives for its input ``x``."""

    def visit(self, name: str, module: nn.Module, output: Tensor) -> Any:
        """Look at another module's output; replace it unless ``None``."""

    def enter(self, name: str, run: Callable[[], Any], inputs: Any) -> Any:
        """What a module that holds dense layers gives: run, or known."""


class CutNetwork:
    """A backbone whose dense layers answer what a visitor says.

    So the network falls into the stretches between dense layers, and as
    those do not compute, a pass is cheap whatever the network's size. In a
    ``with`` block the backbone is in evaluation mode, and all parameters
    outside the dense layers (norms, layer scales, depthwise convs) are
    random and of order 1, so that a norm which starts at zero hides nothing.
    Afterwards it is as it was.

    Args:
        backbone: The network.
        work: Counts what its modules do, and ends passes at a bound.
    """

    def __init__(self, backbone: nn.Module, work: Work | None = None) -> None:
        self.backbone = backbone
        self._work = work or Work()
        self._stack = ExitStack()
        self._visitor: Visitor | None = None
        self._trail: list[str] = []

    def __enter__(self) -> 'CutNetwork':
        _refuse_numberless(self.backbone)
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.backbone))
            stack.enter_context(_benign(self.backbone))
            for name, module in self.backbone.named_modules():
                self._join(stack, name, module)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def run(self, images: Tensor, visitor: Visitor) -> list[Tensor]:
        """One pass.

        Args:
            images: (N, C, H, W).
            visitor: Answers for the dense layers.

        Returns:
            All tensors that leave the backbone.

        Raises:
            FGCError: It does not run on such images; names the module.
        """
        self._visitor = visitor
        self._trail.clear()
        try:
            with torch.no_grad(), _fixed_seed(images.device):
                outputs = self.backbone(images)
        except FGCError:
            raise
        except Exception as error:
            raise FGCError(self._no_run(images, error)) from error
        found = list(tensors(outputs))
        if not found:
            raise FGCError(
                f'{type(self.backbone).__name__} gives '
                f'{type(outputs).__name__}, in which no tensor can be seen; '
                'it must give a tensor, or a tuple, list or dict of tensors.'
            )
        return found

    def _join(self, stack: ExitStack, name: str, module: nn.Module) -> None:
        def enter(*_: Any) -> None:
            self._trail.append(name)

        def leave(_: nn.Module, __: Any, output: Any) -> Any:
            self._trail.pop()
            self._work.add(output)
            if is_dense(module) or not isinstance(output, Tensor):
                return None
            return self._visitor.visit(name, module, output)

        def answer(x: Tensor) -> Tensor:
            return self._visitor.answer(name, module, x)

        def through(*args: Any, **options: Any) -> Any:
            run = partial(own, *args, **options)
            return self._visitor.enter(name, run, (args, options))

        own = module.forward
        if is_dense(module):
            _replace_forward(stack, module, answer)
        elif name and any(map(is_dense, module.modules())):
            _replace_forward(stack, module, through)
        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave).remove)

    def _no_run(self, images: Tensor, error: Exception) -> str:
        size = 'x'.join(map(str, images.shape[1:]))
        running = self._trail[-1] if self._trail else ''
        if running and _missing(error) == running:
            return (
                f'{running} of {type(self.backbone).__name__} runs for some '
                f'images of {size} and not for others, but gates need a '
                'network that runs the same layers for every image; choose '
                'another backbone.'
            )
        where = ''.join(f' in {name}' for name in self._trail[-1:] if name)
        text = str(error).strip() or type(error).__name__
        return (
            f'{type(self.backbone).__name__} does not run on an image of '
            f'{size}{where} ({text.splitlines()[-1]}); it must take a batch '
            'of images alone, and if they must have a certain size, name it: '
            "sites=dict(type='auto', image_size=...)."
        )


def _missing(error: Exception) -> str | None:
    """The module of which an earlier pass has shown nothing, if it is that."""
    if not isinstance(error, KeyError) or not error.args:
        return None
    return getattr(error.args[0], 'path', error.args[0])


def output_shape(layer: nn.Module, x: Tensor) -> torch.Size:
    """The shape of a layer's output, without the work."""
    if is_parametrized(layer):  # its weight is made of other modules'
        return type(layer).forward(layer, x).shape
    twin = copy.copy(layer)
    twin.__dict__['_parameters'] = {
        name: None if value is None else value.to('meta')
        for name, value in layer._parameters.items()
    }
    return type(layer).forward(twin, x.to('meta')).shape


def tensors(outputs: Any) -> Iterator[Tensor]:
    """All tensors of a nested output."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from tensors(list(outputs.values()))
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from tensors(output)


def _replace_forward(
    stack: ExitStack, module: nn.Module, forward: Callable
) -> None:
    if 'forward' in module.__dict__:  # not the class's own
        stack.callback(setattr, module, 'forward', module.forward)
    stack.callback(module.__dict__.pop, 'forward')
    module.forward = forward


def _refuse_numberless(backbone: nn.Module) -> None:
    kind = type(backbone).__name__
    parameters = list(backbone.parameters())
    if not parameters:
        raise FGCError(
            f'{kind} has no parameters, so there is nothing to gate; choose '
            'another backbone.'
        )
    if any(is_lazy(p) or p.is_meta for p in parameters):
        raise FGCError(
            f'{kind} has parameters without numbers (of a lazy layer, or on '
            'the meta device); run it once, or build it on the cpu.'
        )


@contextmanager
def _fixed_seed(device: torch.device) -> Iterator[None]:
    """One and the same seed on a device, as some mask at random even here.

    Not by ``torch.manual_seed``, which seeds all devices for good.
    """
    cuda = [device] if device.type == 'cuda' else []
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(0)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


@contextmanager
def _benign(backbone: nn.Module) -> Iterator[None]:
    """Random parameters of order 1 outside the dense layers, for a while."""
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        for module in backbone.modules():
            state = dict(module.named_parameters(recurse=False))
            if is_dense(module):  # none of its numbers matter but zeros
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
                    values /= math.prod(module.kernel_size)
                stack.callback(setattr, tensor, 'data', tensor.data)
                tensor.data = values.to(tensor)
        yield
