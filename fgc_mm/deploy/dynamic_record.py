"""What a network does to one image, as a list of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgc_mm.deploy.dynamic_engines import NO_CLAMP, Clamp
from fgc_mm.deploy.dynamic_layers import DynamicConv, FastMaxPool
from fgc_mm.deploy.dynamic_trace import ASKING

CONV, POOL, ADD, COPY = 'conv', 'pool', 'add', 'copy'
ADDING = {'add', 'add_', '__add__', '__iadd__', '__radd__'}
CLAMPS: dict[str, Clamp] = {
    'relu': (0.0, float('inf')),
    'relu_': (0.0, float('inf')),
    'relu6': (0.0, 6.0),
}


class NotRecordable(Exception):
    """The network does something that is no step; the text says what."""


@dataclass
class Step:
    """One step: some values in, one value out.

    Attributes:
        kind: ``'conv'``, ``'pool'`` (max), ``'add'`` or ``'copy'``.
        reads: The values that it takes; of a conv the input, and perhaps
            what is added to its sums.
        gives: The value that it makes.
        module: The layer of a conv or pool.
        clamp: Least and most of what comes out.
        stride: Of a copy: so many pixels on.
        first: Of a copy: channels of zeros before what is copied; behind it
            too, if there is room.
    """

    kind: str
    reads: list[int]
    gives: int
    module: nn.Module | None = None
    clamp: Clamp = NO_CLAMP
    stride: int = 1
    first: int = 0


@dataclass
class Recording:
    """The steps of one pass; value 0 is the image.

    Attributes:
        shapes: (C, H, W) of every value.
        steps: In order.
        outputs: The values that the network returns.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class Recorder(TorchFunctionMode):
    """Writes down one pass of a network whose layers are dynamic.

    The network's own code runs as it is; what it does to tensors is seen
    here. A tensor that is changed in place is a new value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording()
        self._values: dict[int, int] = {}
        self._kept: list[Tensor] = []  # an id is one tensor's while it lives
        self._inside = False

    def record(self, network: nn.Module, image: Tensor) -> Recording:
        """One pass, with all channels.

        Args:
            network: Its layers as :func:`fold` makes them; gates asleep.
            image: (1, 3, H, W).

        Raises:
            NotRecordable: It does something that is no step.
        """
        hooks = []
        for module in network.modules():
            if isinstance(module, (DynamicConv, FastMaxPool)):
                hooks.append(module.register_forward_pre_hook(self._enter))
                hooks.append(module.register_forward_hook(self._leave))
        self._new(image)
        try:
            with self, torch.no_grad():
                outputs = network(image)
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(outputs, tuple):
            raise NotRecordable(f'it returns a {type(outputs).__name__}')
        self.recording.outputs = [self._value(output) for output in outputs]
        return self.recording

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        """Note what is done to values outside of the layers."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, '__name__', '')
        if not self._inside and name not in ASKING and _of_tensors(args):
            self._note(name, args, kwargs, result)
        return result

    def _note(self, name: str, args: tuple, kwargs: dict, result: Any) -> None:
        if name in ADDING and len(args) == 2 and not kwargs:
            self._step(ADD, args, result)
        elif name in CLAMPS:
            self._step(COPY, args[:1], result, clamp=CLAMPS[name])
        elif name == '__getitem__' and _stride(args[1]):
            self._step(COPY, args[:1], result, stride=_stride(args[1]))
        elif name == 'pad' and _pads_channels(args[1:], kwargs):
            self._step(COPY, args[:1], result, first=args[1][4])
        elif name == 'dropout' and result is args[0]:
            return  # asleep
        else:
            raise NotRecordable(f'it calls {name or "something unnamed"}')

    def _enter(self, module: nn.Module, args: tuple) -> None:
        self._inside = True

    def _leave(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._inside = False
        if isinstance(module, DynamicConv):
            self._step(CONV, args, output, module=module, clamp=module.clamp)
        else:
            self._step(POOL, args, output, module=module)

    def _step(
        self, kind: str, reads: tuple, result: Tensor, **how: Any
    ) -> None:
        known = [self._value(tensor) for tensor in reads]
        if any(tensor is result for tensor in reads):
            self._refuse_views(result)
        shapes = {self.recording.shapes[value] for value in known}
        if kind == ADD and shapes != {tuple(result.shape[1:])}:
            raise NotRecordable('it adds maps of several shapes')
        step = Step(kind, known, self._new(result), **how)
        self.recording.steps.append(step)

    def _refuse_views(self, changed: Tensor) -> None:
        """In-place changes must not be seen through another tensor."""
        memory = changed.untyped_storage().data_ptr()
        for other in self._kept:
            shared = other.untyped_storage().data_ptr() == memory
            if shared and other is not changed:
                raise NotRecordable('it changes a tensor that has views')

    def _value(self, tensor: Any) -> int:
        value = self._values.get(id(tensor))
        if value is None:
            raise NotRecordable('it uses a tensor that no step has made')
        return value

    def _new(self, tensor: Tensor) -> int:
        if tensor.dim() != 4:
            raise NotRecordable(f'it makes a tensor of {tensor.dim()} axes')
        self._values[id(tensor)] = len(self.recording.shapes)
        self._kept.append(tensor)
        self.recording.shapes.append(tuple(tensor.shape[1:]))
        return len(self.recording.shapes) - 1


def _of_tensors(args: tuple) -> bool:
    return any(isinstance(x, (Tensor, list, tuple)) for x in args)


def _stride(index: Any) -> int:
    """Of an index that takes every so-manieth pixel; 0 of any other."""
    if not isinstance(index, tuple) or len(index) != 4:
        return 0
    whole, step = slice(None), getattr(index[3], 'step', None)
    every = slice(None, None, step)
    return step or 0 if index == (whole, whole, every, every) else 0


def _pads_channels(args: tuple, kwargs: dict) -> bool:
    """Whether a padding puts zeros before and behind the channels only."""
    pads = args[0] if len(args) == 1 else ()
    zeros = kwargs.get('mode') == 'constant' and not kwargs.get('value')
    return zeros and len(pads) == 6 and not any(pads[:4]) and min(pads) >= 0


def fused(recording: Recording) -> list[Step]:
    """The steps, with sums and clamps inside the convs before them.

    A sum joins a conv whose result it alone uses, at the sum's place: all
    that is added is there by then. A clamp joins the step whose result it
    alone uses.
    """
    steps: list[Step] = []
    uses = _uses(recording)
    for step in recording.steps:
        made = [s for s in steps if s.gives in step.reads]
        made = [s for s in made if uses[s.gives] == 1]
        joins = _sum_joins if step.kind == ADD else _clamp_joins
        maker = next((s for s in reversed(made) if joins(step, s)), None)
        if maker is None:
            steps.append(replace(step, reads=list(step.reads)))
            continue
        if step.kind == ADD:
            (other,) = (v for v in step.reads if v != maker.gives)
            maker.reads.append(other)
            steps.remove(maker)
            steps.append(maker)
        else:
            maker.clamp = step.clamp
        maker.gives = step.gives
    return steps


def _uses(recording: Recording) -> list[int]:
    """How often every value is read."""
    uses = [0] * len(recording.shapes)
    for step in recording.steps:
        for value in step.reads:
            uses[value] += 1
    for value in recording.outputs:
        uses[value] += 1
    return uses


def _sum_joins(_: Step, maker: Step) -> bool:
    free = maker.clamp == NO_CLAMP and len(maker.reads) == 1
    # a site's channels are lists: they are added to nothing
    return maker.kind == CONV and free and maker.module.writes is None


def _clamp_joins(step: Step, maker: Step) -> bool:
    only = step.kind == COPY and step.stride == 1 and step.first == 0
    return only and maker.clamp == NO_CLAMP and maker.kind != POOL
