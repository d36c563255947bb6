"""Probing passes: where changes of the sources arrive."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.layer_channels import (
    channels_last,
    channels_second,
    is_depthwise,
    layer_widths,
    mixes_channels,
)
from fgc_mm.sites.observation import (
    BrokenProbe,
    Observation,
    differ,
    flat_maps,
)
from fgc_mm.sites.probed_backbone import (
    ProbedBackbone,
    output_shape,
    run_layer,
    tensors,
)
from fgc_mm.sites.watch_products import watch_products

IMAGE = ''  # name of the image among the sources
# Factors of the values in the first pass and of a change, for both images.
SMALL = (1, -10), (1, 200)
LARGE = (100, 10_000), (100, 10_000)


class ProbePoint(NamedTuple):
    """A point in the network where channels are observed.

    Attributes:
        kind: ``'input'`` (of a conv or linear layer that mixes channels),
            ``'depthwise'`` (the output of a depthwise conv), ``'module'`` or
            ``'module-last'`` (the output of any module, with the channels
            as second or last dimension), or ``'end'`` (an output of the
            backbone).
        path: Of the module; at the end, the index of the output.
    """

    kind: str
    path: str


class ChannelProbe:
    """Runs forward passes in which the outputs of all sources are fixed.

    Sources are the image and every layer that mixes channels. A pass takes
    two images, and a difference in either counts. In the first image all
    values are small and positive, where no clamp saturates; in the second
    every source changes from below zero to far above it, so that a sign, a
    threshold or a ``relu`` of negative values cannot hide the change.

    Args:
        probed: The network.
        images: (1, C, H, W).
        modules: Also observe the outputs of all modules.
        computed: Start from the images and the layers' own outputs for them,
            for a network that fails on the values described above.
        large: All values and changes are positive and large instead.

    Attributes:
        sources: Channels of every source, in the order of the forward pass.
        points: Channels of every probe point.
        runs: How often a forward pass reaches every point.
        shapes: Output shape of every conv and linear layer.

    Raises:
        FGCError: The network fails on such an image.
    """

    def __init__(
        self,
        probed: ProbedBackbone,
        images: Tensor,
        modules: bool = False,
        computed: bool = False,
        large: bool = False,
    ) -> None:
        self._probed = probed
        self._factors = LARGE if large else SMALL
        self._computed = computed
        self._images = torch.cat([images, images])
        self._widths = _widths(probed.backbone) if modules else (set(), set())
        self._generator = torch.Generator().manual_seed(0)
        self._baseline: dict[str, Tensor] = {}
        self._changes: dict[str, Tensor] = {}
        self._observed: dict[ProbePoint, list[Observation]] = {}
        self._outputs: dict[str, Tensor] = {}
        self._output_counts: Counter[str] = Counter()  # outputs per module
        self._cached: dict[str, _CachedCall | None] = {}
        self._stateful = False  # some module stores tensors
        self._flags: dict[ProbePoint, Tensor] = {}
        self._pass_counts: Counter[ProbePoint] = Counter()
        self._affected: set[str] = set()
        self._change: Mapping[str, Tensor] = {}
        self._zeroed: str | None = None
        self._fixed: str | None = None
        self._perturbed: str | None = None
        self._stop_at: Mapping[ProbePoint, Tensor] | None = None
        self._only: Container[ProbePoint] | None = None
        self._small = False
        self._compare: Callable[[Tensor, Observation], Tensor] | None = None
        self.shapes: dict[str, torch.Size] = {}
        before = self._stored_tensors(IMAGE)
        self._run()
        self._stateful |= before != self._stored_tensors(IMAGE)
        self.runs = self._pass_counts
        self.points = {
            p: seen[0].channels for p, seen in self._observed.items()
        }
        self.sources = {
            name: self._channels_second(name, output).shape[1]
            for name, output in self._baseline.items()
        }

    def propagate(
        self,
        change: Mapping[str, Tensor],
        fixed: str | None = None,
        small: bool = False,
        only: Container[ProbePoint] | None = None,
    ) -> dict[ProbePoint, Tensor]:
        """Where a change arrives.

        Args:
            change: For some sources, which channels change; (C,) bool.
            fixed: A module whose output is kept fixed.
            small: Change the first image only, by small positive values.
            only: Points to compare; at the others nothing differs. All
                points if ``None``.

        Returns:
            For every point, which of its channels differ, (C,) bool.

        Raises:
            BrokenProbe: The network does not run with this change.
        """
        self._change, self._fixed, self._compare = change, fixed, differ
        self._small, self._only = small, only
        try:
            return self._probe()
        finally:
            self._small, self._only = False, None

    def propagate_until(
        self,
        change: Mapping[str, Tensor],
        stop_at: Mapping[ProbePoint, Tensor] | None,
    ) -> dict[ProbePoint, Tensor] | None:
        """As :meth:`propagate`; ``None`` if the change arrives at certain
        channels, given for every point, where the pass stops."""
        self._stop_at = stop_at
        try:
            return self.propagate(change)
        except _StopPass:
            return None
        finally:
            self._stop_at = None

    def nonzero_when_zeroed(self, zeroed: str) -> dict[ProbePoint, Tensor]:
        """Where values are nonzero if a source's output is zero; (C,) bool.

        Raises:
            BrokenProbe: The network fails with these zeros.
        """
        self._zeroed = zeroed
        self._compare = lambda seen, _: seen.nan_to_num() != 0
        return self._probe()

    def points_affected_by(self, module: str) -> set[ProbePoint]:
        """The points that change when a module's output changes.

        Raises:
            BrokenProbe: The network fails with another output.
        """
        self._perturbed, self._compare = module, differ
        flags = self._probe()
        return {point for point, seen in flags.items() if seen.any()}

    def _probe(self) -> dict[ProbePoint, Tensor]:
        try:
            return self._run()
        except FGCError as error:
            raise BrokenProbe(str(error)) from error

    def macs_outside_layers(self) -> int:
        """MACs of a pass outside the layers that mix channels.

        These are depthwise convs, attention, and layers run without their
        module's forward; for two images, as in :attr:`shapes`.
        """
        found: list[int] = []
        with watch_products(lambda product: found.append(product.macs)):
            images = self._baseline[IMAGE].clone()
            self._probed.run(images, _Baseline(self._baseline))
        return sum(found)

    def _run(self) -> dict[ProbePoint, Tensor]:
        if self._compare is not None:
            self._flags = {
                point: torch.zeros(channels, dtype=torch.bool)
                for point, channels in self.points.items()
            }
        self._pass_counts = Counter()
        self._affected = {
            parent
            for name in (
                *self._change,
                self._zeroed,
                self._fixed,
                self._perturbed,
            )
            for parent in _parents(name or IMAGE)
        }
        try:
            first = self._images
            images = self._source_output(IMAGE, first.shape, first.clone)
            for number, output in enumerate(self._probed.run(images, self)):
                end = ProbePoint('end', str(number))
                self._observe(end, torch.atleast_2d(output))
        finally:
            self._change = {}
            self._zeroed = self._fixed = self._perturbed = None
        return self._flags

    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """Observe the layer's input, and return its fixed output."""
        self._observe(ProbePoint('input', name), channels_second(layer, x))
        if name not in self.shapes:
            self.shapes[name] = output_shape(layer, x)
        compute = partial(run_layer, layer, x)
        return self._source_output(name, self.shapes[name], compute)

    def runs_once(self, name: str) -> bool:
        """Whether a module runs once per pass, so it can be held fixed."""
        return self._output_counts[name] == 1

    def run_module(
        self, name: str, run: Callable[[], Any], inputs: Any
    ) -> Any:
        """Return the cached output if nothing in the module changes."""
        if self._compare is None:
            call = _CachedCall(inputs)
            before = self._stored_tensors(name)
            output = call.run(run)
            self._stateful |= before != self._stored_tensors(name)
            repeated = name in self._cached or call.not_cacheable
            self._cached[name] = None if repeated else call
            return output
        if self._stateful:
            return run()
        cached = self._cached[name]
        affected = name in self._affected or self._zeroed
        if cached is None or affected or not cached.same_inputs(inputs):
            return run()
        return _clone_tensors(cached.output)

    def _stored_tensors(self, name: str) -> list['_TensorVersion']:
        """Tensors stored in the attributes of a module and its children."""
        parts = self._probed.backbone.get_submodule(name).modules()
        return [
            _TensorVersion(x) for part in parts for x in tensors(vars(part))
        ]

    def after_module(
        self, name: str, module: nn.Module, output: Tensor
    ) -> Tensor | None:
        """Observe the output of a module that computes."""
        if is_depthwise(module):
            self.shapes[name] = output.shape
            self._observe(ProbePoint('depthwise', name), output)
        second, last = self._widths
        if output.dim() > 2 and output.shape[1] in second:
            self._observe(ProbePoint('module', name), output)
        if output.dim() > 1 and output.shape[-1] in last:
            self._observe(
                ProbePoint('module-last', name), output.movedim(-1, 1)
            )
        if self._compare is None and (second or last):
            self._outputs[name] = output.clone()
            self._output_counts[name] += 1
        if name == self._perturbed:
            return output + self._random(output.shape, self._factors[1])
        return self._outputs[name].clone() if name == self._fixed else None

    def _observe(self, point: ProbePoint, x: Tensor) -> None:
        number = self._pass_counts[point]
        self._pass_counts[point] += 1
        if number and point.kind.startswith('module'):
            return  # a shared module: its maps may have several widths
        if self._compare is None:
            self._observed.setdefault(point, []).append(Observation(x))
            return
        if self._only is not None and point not in self._only:
            return
        differs = self._compare(flat_maps(x), self._observed[point][number])
        flags = differs.any((0, 2)).cpu()
        if self._stop_at is not None and (flags & self._stop_at[point]).any():
            raise _StopPass
        self._flags[point] |= flags

    def _source_output(
        self, name: str, shape: torch.Size, compute: Callable[[], Tensor]
    ) -> Tensor:
        if name not in self._baseline:
            self._baseline[name] = (
                compute().contiguous()
                if self._computed
                else self._random(shape, self._factors[0])
            )
            self._changes[name] = self._random(shape, self._factors[1])
        output = self._baseline[name]
        if name in self._change:
            # in place, and so with the strides of the baseline
            changed = self._changes[name].clone()
            second = self._channels_second(name, changed)
            which = self._change[name].reshape(-1, *[1] * (second.dim() - 2))
            second *= which.to(second)
            if self._small:
                changed[(len(changed) + 1) // 2 :] = 0
            return changed.add_(output)
        # never the stored tensor itself: later operations may be in place
        return output * 0 if name == self._zeroed else output.clone()

    def _random(
        self, shape: torch.Size, factors: tuple[float, float]
    ) -> Tensor:
        """Values of about 0.03 times the factor of their image."""
        values = torch.rand(shape, generator=self._generator) * 0.03 + 0.02
        half = (len(values) + 1) // 2
        values[:half] *= factors[0]
        values[half:] *= factors[1]
        return values.to(self._images)

    def _channels_second(self, name: str, x: Tensor) -> Tensor:
        layer = self._probed.backbone.get_submodule(name)
        return x if name == IMAGE else channels_second(layer, x)


class _StopPass(BaseException):
    """Stops a pass; not an ``Exception``, which a backbone may catch."""


class _TensorVersion:
    """A tensor in a module's attributes and its version counter."""

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._version = 0 if x.is_inference() else x._version

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _TensorVersion):
            return False
        return self._x is other._x and self._version == other._version


class _CachedCall:
    """Inputs and output of a module in the first pass."""

    def __init__(self, inputs: Any) -> None:
        self._inputs = _clone_tensors(tensors(inputs))
        self._output_counts = inputs
        self.output: Any = None
        self.not_cacheable = False

    def run(self, run: Callable[[], Any]) -> Any:
        """Run the module; not cacheable if in place or of unknown types."""
        output = run()
        self.output = _clone_tensors(output)
        self.not_cacheable = not (
            self.same_inputs(self._output_counts)
            and _has_known_types(self._output_counts)
            and _has_known_types(output)
        )
        self._output_counts = None
        return output

    def same_inputs(self, inputs: Any) -> bool:
        """Whether these are the same inputs."""
        now = tensors(inputs)
        return len(now) == len(self._inputs) and all(
            map(torch.equal, now, self._inputs)
        )


def _clone_tensors(value: Any) -> Any:
    """Copy with clones of all tensors: later operations may be in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_clone_tensors, value))
    if type(value) is dict:
        return {key: _clone_tensors(item) for key, item in value.items()}
    return value


def _has_known_types(value: Any) -> bool:
    """Whether a value has only types whose tensors are found and cloned."""
    if type(value) is dict:
        value = list(value.values())
    if type(value) in (list, tuple, torch.Size):
        return all(map(_has_known_types, value))
    return value is None or isinstance(value, (Tensor, bool, int, float, str))


def _parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition('.')[0]


def _widths(backbone: nn.Module) -> tuple[set[int], set[int]]:
    """Output widths of layers with channels second, and channels last."""
    second: set[int] = set()
    last: set[int] = set()
    for layer in filter(mixes_channels, backbone.modules()):
        width = layer_widths(layer)[1]
        (last if channels_last(layer) else second).add(width)
    return second, last


class _Baseline:
    """A visitor that returns stored outputs, so no MACs are counted."""

    def __init__(self, outputs: Mapping[str, Tensor]) -> None:
        self._outputs = outputs

    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        return self._outputs[name].clone()

    def run_module(
        self, name: str, run: Callable[[], Any], inputs: Any
    ) -> Any:
        return run()

    def after_module(
        self, name: str, module: nn.Module, output: Tensor
    ) -> None:
        pass
