"""Probing passes, which observe where changes of sources arrive."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import flat_maps
from fgc_mm.sites.call import tensors
from fgc_mm.sites.layer_channels import (
    channels_last,
    channels_second,
    is_depthwise,
    layer_widths,
    mixes_channels,
)
from fgc_mm.sites.observation import BrokenProbe, Observation, differ
from fgc_mm.sites.probed_backbone import (
    ProbedBackbone,
    Visitor,
    output_shape,
    run_layer,
)
from fgc_mm.sites.watch_products import watch_products

IMAGE = ''  # name of the image among the sources
# For each of both images: factors of the values in the first pass, and of a
# change.
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
        path: Path of the module; at the end, index of the output.
    """

    kind: str
    path: str


class ChannelProbe(Visitor):
    """Runs forward passes in which the outputs of all sources are fixed.

    Sources are the image and every layer that mixes channels. A pass takes
    two images, and a difference in either counts. For the first image all
    values are small and positive, so that no clamp saturates; for the second
    every source changes from below zero to far above it, so that a sign, a
    threshold or a ``relu`` of negative values cannot hide the change.

    Args:
        probed: The network.
        images: (1, C, H, W).
        modules: Also observe the outputs of all modules.
        computed: Start from the images and the layers' own outputs for them,
            for a network that fails on the values described above.
        large: Make all values and changes positive and large instead.

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
        # inputs and output of the modules whose output may be reused
        self._cached: dict[str, tuple[list[Tensor], Any] | None] = {}
        self._stateful = False  # some module stores tensors
        self._flags: dict[ProbePoint, Tensor] = {}
        self._pass_counts: Counter[ProbePoint] = Counter()
        self._affected: set[str] = set()
        self.shapes: dict[str, torch.Size] = {}
        before = self._stored_tensors(IMAGE)
        self._run(_Pass())
        self._stateful |= before != self._stored_tensors(IMAGE)
        self.runs = self._pass_counts
        self.points = {
            p: seen[0].channels for p, seen in self._observed.items()
        }
        self.sources = {
            name: self._channels_second(name, output).shape[1]
            for name, output in self._baseline.items()
        }

    def whole(self, *names: str) -> dict[str, Tensor]:
        """A change of all channels of these sources."""
        return {name: torch.ones(self.sources[name]).bool() for name in names}

    def propagate(
        self,
        change: Mapping[str, Tensor],
        fixed: str | None = None,
        small: bool = False,
        only: Container[ProbePoint] | None = None,
        stop_at: Mapping[ProbePoint, Tensor] | None = None,
    ) -> dict[ProbePoint, Tensor]:
        """Which channels of every point differ after a change, (C,) bool.

        Args:
            change: For some sources, which channels change; (C,) bool.
            fixed: A module whose output is kept fixed.
            small: Change the first image only, by small positive values.
            only: Points to compare; all if ``None``. The result for other
                points is that nothing differs.
            stop_at: For every point, the channels at which an arriving
                change ends the pass; (C,) bool.

        Raises:
            BrokenProbe: The network does not run with this change.
            StoppedPass: The change arrives at a channel of ``stop_at``.
        """
        return self._probe(_Pass(differ, change, fixed, small, only, stop_at))

    def nonzero_when_zeroed(self, zeroed: str) -> dict[ProbePoint, Tensor]:
        """Where values are nonzero if a source's output is zero; (C,) bool.

        Raises:
            BrokenProbe: The network fails with these zeros.
        """
        return self._probe(
            _Pass(lambda seen, _: seen.nan_to_num() != 0, zeroed=zeroed)
        )

    def points_affected_by(self, module: str) -> set[ProbePoint]:
        """The points that change when a module's output changes.

        Raises:
            BrokenProbe: The network fails with another output.
        """
        flags = self._probe(_Pass(differ, perturbed=module))
        return {point for point, seen in flags.items() if seen.any()}

    def _probe(self, current: '_Pass') -> dict[ProbePoint, Tensor]:
        try:
            return self._run(current)
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

    def _run(self, current: '_Pass') -> dict[ProbePoint, Tensor]:
        self._pass = current
        if current.compare is not None:
            self._flags = {
                point: torch.zeros(channels, dtype=torch.bool)
                for point, channels in self.points.items()
            }
        self._pass_counts = Counter()
        named = current.zeroed, current.fixed, current.perturbed
        changed = [*current.change, *filter(None, named)]
        self._affected = {part for name in changed for part in _parents(name)}
        first = self._images
        images = self._source_output(IMAGE, first.shape, first.clone)
        for number, output in enumerate(self._probed.run(images, self)):
            end = ProbePoint('end', str(number))
            self._observe(end, torch.atleast_2d(output))
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
        if self._pass.compare is None:
            return self._run_and_cache(name, run, inputs)
        if self._stateful:
            return run()
        given, output = self._cached[name] or (None, None)
        affected = name in self._affected or self._pass.zeroed
        if given is None or affected or not _are_equal(given, tensors(inputs)):
            return run()
        return _clone_tensors(output)

    def _run_and_cache(
        self, name: str, run: Callable[[], Any], inputs: Any
    ) -> Any:
        """Run a module, and cache its output if that is safe.

        Not if it runs several times, changes its inputs, or has inputs or
        outputs of unknown types.
        """
        given = _clone_tensors(tensors(inputs))
        before = self._stored_tensors(name)
        output = run()
        self._stateful |= before != self._stored_tensors(name)
        cacheable = (
            name not in self._cached
            and _are_equal(given, tensors(inputs))
            and _has_known_types([inputs, output])
        )
        self._cached[name] = (
            (given, _clone_tensors(output)) if cacheable else None
        )
        return output

    def _stored_tensors(self, name: str) -> list[tuple[int, int, Tensor]]:
        """Tensors in the attributes of a module and its children.

        Their ids, their version counters, and themselves, which keeps the id.
        """
        parts = self._probed.backbone.get_submodule(name).modules()
        return [
            (id(x), 0 if x.is_inference() else x._version, x)
            for part in parts
            for x in tensors(vars(part))
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
        if self._pass.compare is None and (second or last):
            self._outputs[name] = output.clone()
            self._output_counts[name] += 1
        if name == self._pass.perturbed:
            return output + self._random(output.shape, self._factors[1])
        return (
            self._outputs[name].clone() if name == self._pass.fixed else None
        )

    def _observe(self, point: ProbePoint, x: Tensor) -> None:
        number = self._pass_counts[point]
        self._pass_counts[point] += 1
        if number and point.kind.startswith('module'):
            return  # a shared module, whose maps may differ in width
        now = self._pass
        if now.compare is None:
            self._observed.setdefault(point, []).append(Observation(x))
            return
        if now.only is not None and point not in now.only:
            return
        differs = now.compare(flat_maps(x), self._observed[point][number])
        flags = differs.any((0, 2)).cpu()
        if now.stop_at is not None and (flags & now.stop_at[point]).any():
            raise StoppedPass
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
        if name in self._pass.change:
            # in place, to keep the strides of the baseline
            changed = self._changes[name].clone()
            second = self._channels_second(name, changed)
            which = self._pass.change[name].reshape(
                -1, *[1] * (second.dim() - 2)
            )
            second *= which.to(second)
            if self._pass.small:
                changed[(len(changed) + 1) // 2 :] = 0
            return changed.add_(output)
        # a copy, since later operations may be in place
        return output * 0 if name == self._pass.zeroed else output.clone()

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


class StoppedPass(BaseException):
    """Ends a pass; not an ``Exception``, which a backbone may catch."""


@dataclass(frozen=True)
class _Pass:
    """The changes of a pass, and how it is compared with the first pass.

    Attributes:
        compare: As :func:`differ`; ``None`` in the first pass.
        zeroed: A source whose output is zero.
        perturbed: A module whose output changes.

    The others are those of :meth:`ChannelProbe.propagate`.
    """

    compare: Callable[[Tensor, Observation], Tensor] | None = None
    change: Mapping[str, Tensor] = field(default_factory=dict)
    fixed: str | None = None
    small: bool = False
    only: Container[ProbePoint] | None = None
    stop_at: Mapping[ProbePoint, Tensor] | None = None
    zeroed: str | None = None
    perturbed: str | None = None


def _are_equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


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


class _Baseline(Visitor):
    """Returns the layers' stored outputs, so none of their MACs counts."""

    def __init__(self, outputs: Mapping[str, Tensor]) -> None:
        self._outputs = outputs

    def layer_output(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        return self._outputs[name].clone()
