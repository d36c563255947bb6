"""What a network does to one image, as a list of steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgc_mm.deploy.dynamic.engines import NO_CLAMP, Clamp
from fgc_mm.deploy.dynamic.layers import (
    DynamicConv,
    DynamicLayer,
    FastMaxPool,
)
from fgc_mm.deploy.dynamic.trace import ASKING

CONV, POOL, ADD, COPY = 'conv', 'pool', 'add', 'copy'
MEAN, LINEAR = 'mean', 'linear'
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
        kind: ``'conv'``, ``'pool'`` (max), ``'add'``, ``'copy'``,
            ``'mean'`` (over all pixels) or ``'linear'``.
        reads: The values that it takes; of a conv the input, and perhaps
            what is added to its sums.
        gives: The value that it makes.
        module: The layer of a conv or pool.
        weight: (C_out, C_in), of a linear step.
        bias: (C_out,), of a linear step.
        clamp: Least and most of what comes out.
        stride: Of a copy: so many pixels on.
        first: Of a copy: channels of zeros before what is copied; behind it
            too, if there is room.
    """

    kind: str
    reads: list[int]
    gives: int
    module: nn.Module | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
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
        flat: Whether the network has them as (N, C); here (C, 1, 1).
        bare: It returns a tensor, no tuple.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    flat: list[bool] = field(default_factory=list)
    bare: bool = False


class Recorder(TorchFunctionMode):
    """Writes down one pass of a network whose layers are dynamic.

    The network's own code runs as it is; what it does to tensors is seen
    here. A tensor that is changed in place is a new value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording()
        self._values: dict[int, int] = {}
        self._versions: dict[int, int] = {}
        self._own: set[int] = set()  # ids of parameters and buffers
        self._kept: list[Tensor] = []  # an id is one tensor's while it lives
        self._inside = False
        self._thread = threading.get_ident()  # others may run the network

    def record(self, network: nn.Module, image: Tensor) -> Recording:
        """One pass, with all channels.

        Args:
            network: Its layers as :func:`fold` makes them; gates asleep. It
                returns a tensor or a tuple of tensors.
            image: (1, 3, H, W).

        Raises:
            NotRecordable: It does something that is no step.
        """
        own = (None, *network.parameters(), *network.buffers())
        self._own = set(map(id, own))
        hooks = []
        for module in network.modules():
            if isinstance(module, (DynamicLayer, FastMaxPool)):
                hooks.append(module.register_forward_pre_hook(self._enter))
                hooks.append(module.register_forward_hook(self._leave))
        try:
            # only a tensor of no inference mode counts its changes
            with torch.inference_mode(False), torch.no_grad():
                image = image.clone()  # the network may change it
                self._new(image)
                with self:
                    outputs = network(image)
        finally:
            for hook in hooks:
                hook.remove()
        self.recording.bare = isinstance(outputs, Tensor)
        if self.recording.bare:
            outputs = (outputs,)
        if not isinstance(outputs, tuple):
            raise NotRecordable(f'it returns a {type(outputs).__name__}')
        self._refuse_changed(outputs)
        self.recording.outputs = [self._value(output) for output in outputs]
        self.recording.flat = [output.dim() == 2 for output in outputs]
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
        self._refuse_changed(args)
        result = func(*args, **kwargs)
        name = getattr(func, '__name__', '')
        given = (*args, *kwargs.values())
        if not self._inside and name not in ASKING and _of_tensors(given):
            self._note(name, args, kwargs, result)
        return result

    def _note(self, name: str, args: tuple, kwargs: dict, result: Any) -> None:
        writer = WRITERS.get(name)
        if not args or not isinstance(args[0], Tensor):
            writer = None  # named, or a number first
        if writer is None or not writer(self, name, args, kwargs, result):
            raise NotRecordable(f'it calls {name or "something unnamed"}')

    def _add(self, _: str, args: tuple, kwargs: dict, result: Tensor) -> bool:
        known = len(args) == 2 and not kwargs
        if known:
            self._step(ADD, args, result)
        return known

    def _clamp(self, name: str, args: tuple, _: dict, result: Tensor) -> bool:
        self._step(COPY, args[:1], result, clamp=CLAMPS[name])
        return True

    def _pixels(self, _: str, args: tuple, __: dict, result: Tensor) -> bool:
        stride = _stride(args[1])
        if stride:
            self._step(COPY, args[:1], result, stride=stride)
        return stride > 0

    def _pad(self, _: str, args: tuple, kwargs: dict, result: Tensor) -> bool:
        known = _pads_channels(args[1:], kwargs)
        if known:
            self._step(COPY, args[:1], result, first=args[1][4])
        return known

    def _mean(self, _: str, args: tuple, __: dict, result: Tensor) -> bool:
        known = result.shape[2:].numel() == 1
        if known:
            self._step(MEAN, args[:1], result)
        return known

    def _linear(
        self, _: str, args: tuple, kwargs: dict, result: Tensor
    ) -> bool:
        named = (kwargs.get('weight'), kwargs.get('bias'))
        weight, bias = (*args[1:], *named[len(args) - 1 :])
        known = {id(weight), id(bias)} <= self._own and args[0].dim() == 2
        if known:
            self._step(LINEAR, args[:1], result, weight=weight, bias=bias)
        return known

    def _flatten(self, _: str, args: tuple, __: dict, result: Tensor) -> bool:
        known = args[0].dim() == 4 and result.shape == args[0].shape[:2]
        if known:  # (1, C, 1, 1) becomes (1, C)
            self._name(result, self._value(args[0]))
        return known

    def _sleep(self, _: str, args: tuple, __: dict, result: Tensor) -> bool:
        return result is args[0]

    def _enter(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self._thread:
            return
        self._refuse_changed(args)
        self._inside = True

    def _leave(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() != self._thread:
            return
        self._inside = False
        if isinstance(module, DynamicConv):
            self._step(CONV, args, output, module=module, clamp=module.clamp)
        elif isinstance(module, FastMaxPool):
            self._step(POOL, args, output, module=module)
        else:
            raise NotRecordable(f'it has a {type(module).__name__}')

    def _step(
        self, kind: str, reads: tuple, result: Tensor, **how: Any
    ) -> None:
        known = [self._value(tensor) for tensor in reads]
        if any(tensor is result for tensor in reads):
            self._refuse_views(result)
        shapes = {self.recording.shapes[value] for value in known}
        if kind == ADD and shapes != {(*result.shape[1:], 1, 1)[:3]}:
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

    def _refuse_changed(self, tensors: tuple) -> None:
        """Code that is not torch's functions may change a tensor, too."""
        for tensor in tensors:
            known = self._versions.get(id(tensor))
            if known is not None and tensor._version != known:
                raise NotRecordable('it changes a tensor out of sight')

    def _value(self, tensor: Any) -> int:
        value = self._values.get(id(tensor))
        if value is None:
            raise NotRecordable('it uses a tensor that no step has made')
        return value

    def _new(self, tensor: Tensor) -> int:
        if tensor.dim() not in (2, 4):
            raise NotRecordable(f'it makes a tensor of {tensor.dim()} axes')
        self._name(tensor, len(self.recording.shapes))
        self.recording.shapes.append((*tensor.shape[1:], 1, 1)[:3])
        return len(self.recording.shapes) - 1

    def _name(self, tensor: Tensor, value: int) -> None:
        self._values[id(tensor)] = value
        self._versions[id(tensor)] = tensor._version
        self._kept.append(tensor)


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


ADDING = ('add', 'add_', '__add__', '__iadd__', '__radd__')
WRITERS: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(ADDING, Recorder._add),
    **dict.fromkeys(CLAMPS, Recorder._clamp),
    '__getitem__': Recorder._pixels,
    'pad': Recorder._pad,
    'adaptive_avg_pool2d': Recorder._mean,
    'linear': Recorder._linear,
    'view': Recorder._flatten,
    'flatten': Recorder._flatten,
    'dropout': Recorder._sleep,
}


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
    # a copy that clamps does nothing else
    only = step.kind == COPY and step.clamp != NO_CLAMP
    clamps = maker.kind in (CONV, ADD, COPY)
    return only and clamps and maker.clamp == NO_CLAMP
