"""What is seen in a cut network, and how it changes with its sources."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.cut import CutNetwork, output_shape, tensors
from fgc_mm.sites.layout import (
    channels_last,
    channels_second,
    is_dense,
    is_depthwise,
    layer_widths,
)
from fgc_mm.sites.seen import BrokenProbe, Seen, differ, flat_maps
from fgc_mm.sites.watching import watch_products

IMAGE = ''  # the image's name among the sources


class Place(NamedTuple):
    """Somewhere in the network where channels can be seen.

    Attributes:
        kind: ``'input'`` of a dense layer, ``'depthwise'`` (the output of a
            depthwise conv), ``'module'`` or ``'module-last'`` (the output of
            any module, its channels taken as second or as last), or
            ``'end'`` (what leaves the backbone).
        path: Of the module; at the end, the number of the output.
    """

    kind: str
    path: str


class Trace:
    """Passes through a cut network whose sources answer fixed numbers.

    Sources are the image and every dense layer. A pass takes two images, and
    what is seen in either counts. In the first all numbers are small and
    positive, where a clamp is not flat yet; in the second every source
    changes from below zero to far above it, so that a sign, a threshold, or
    a ``relu`` of the negative hides nothing.

    Args:
        cut: The network.
        images: (1, C, H, W).
        modules: Look at the outputs of all modules, too.

    Attributes:
        sources: Channels of every source, in the order of the forward pass.
        places: Channels of every place.
        runs: How often every place is passed.
        shapes: Output shape of every conv and linear layer.

    Raises:
        FGCError: The network does not run on such an image.
    """

    def __init__(
        self, cut: CutNetwork, images: Tensor, modules: bool = False
    ) -> None:
        self._cut = cut
        self._images = torch.cat([images, images])
        self._widths = _widths(cut.backbone) if modules else (set(), set())
        self._generator = torch.Generator().manual_seed(0)
        self._answers: dict[str, Tensor] = {}
        self._changes: dict[str, Tensor] = {}
        self._seen: dict[Place, list[Seen]] = {}
        self._outputs: dict[str, Tensor] = {}
        self._given: Counter[str] = Counter()  # outputs of every module
        self._known: dict[str, _Known | None] = {}
        self._remembers = False  # some module keeps what it saw
        self._flags: dict[Place, Tensor] = {}
        self._turns: Counter[Place] = Counter()
        self._stirred: set[str] = set()
        self._change: Mapping[str, Tensor] = {}
        self._blank: str | None = None
        self._hold: str | None = None
        self._disturb: str | None = None
        self._until: Mapping[Place, Tensor] | None = None
        self._only: Container[Place] | None = None
        self._gently = False
        self._judge: Callable[[Tensor, Seen], Tensor] | None = None
        self.shapes: dict[str, torch.Size] = {}
        before = self._kept(IMAGE)
        self._run()
        self._remembers |= before != self._kept(IMAGE)
        self.runs = self._turns
        self.places = {p: seen[0].channels for p, seen in self._seen.items()}
        self.sources = {
            name: self._second(name, answer).shape[1]
            for name, answer in self._answers.items()
        }

    def changed(
        self,
        change: Mapping[str, Tensor],
        hold: str | None = None,
        until: Mapping[Place, Tensor] | None = None,
        gently: bool = False,
        only: Container[Place] | None = None,
    ) -> dict[Place, Tensor] | None:
        """Where a change arrives.

        Args:
            change: For some sources, which channels change; (C,) bool.
            hold: A module whose output stays as it was.
            until: For every place, channels at which to end the pass: one
                that arrives there is not followed any further.
            gently: Change the first image only, by small positive numbers.
            only: Places to compare; at the others nothing differs. All
                places if ``None``.

        Returns:
            For every place, which of its channels differ, (C,) bool; None if
            the pass was ended.

        Raises:
            BrokenProbe: The network does not run with this change.
        """
        self._change, self._hold, self._judge = change, hold, differ
        self._until, self._gently, self._only = until, gently, only
        try:
            return self._probe()
        except _EnoughSeen:
            return None
        finally:
            self._until, self._gently, self._only = None, False, None

    def nonzero(self, blank: str) -> dict[Place, Tensor]:
        """Where something is left when a source answers zeros; (C,) bool.

        Raises:
            BrokenProbe: The network does not run with these zeros.
        """
        self._blank = blank
        self._judge = lambda seen, _: seen.nan_to_num() != 0
        return self._probe()

    def depends_on(self, module: str) -> set[Place]:
        """The places that another output of a module would change.

        Raises:
            BrokenProbe: The network does not run with another one.
        """
        self._disturb, self._judge = module, differ
        flags = self._probe()
        return {place for place, seen in flags.items() if seen.any()}

    def _probe(self) -> dict[Place, Tensor]:
        try:
            return self._run()
        except FGCError as error:
            raise BrokenProbe(str(error)) from error

    def macs_between(self) -> int:
        """MACs of a pass that no cut layer computes.

        Depthwise convs, attention, and what runs without its module's
        forward; the images of a pass are two, as in :attr:`shapes`.
        """
        found: list[int] = []
        with watch_products(lambda product: found.append(product.macs)):
            self._cut.run(self._images, _Zeros(self.shapes))
        return sum(found)

    def _run(self) -> dict[Place, Tensor]:
        if self._judge is not None:
            self._flags = {
                place: torch.zeros(channels, dtype=torch.bool)
                for place, channels in self.places.items()
            }
        self._turns = Counter()
        self._stirred = {
            parent
            for name in (*self._change, self._blank, self._hold, self._disturb)
            for parent in _parents(name or IMAGE)
        }
        try:
            images = self._answered(IMAGE, self._images.shape)
            for number, output in enumerate(self._cut.run(images, self)):
                end = Place('end', str(number))
                self._see(end, torch.atleast_2d(output))
        finally:
            self._change = {}
            self._blank = self._hold = self._disturb = None
        return self._flags

    def answer(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        """Look at a dense layer's input, and give its fixed numbers."""
        self._see(Place('input', name), channels_second(layer, x))
        if name not in self.shapes:
            self.shapes[name] = output_shape(layer, x)
        return self._answered(name, self.shapes[name])

    def runs_once(self, name: str) -> bool:
        """Whether a module gives one output in a pass, so it can be held."""
        return self._given[name] == 1

    def enter(self, name: str, run: Callable[[], Any], inputs: Any) -> Any:
        """Spare a module that reads and answers as it did at first."""
        if self._judge is None:
            known = _Known(inputs)
            before = self._kept(name)
            output = known.observe(run)
            self._remembers |= before != self._kept(name)
            repeated = name in self._known or known.spoilt
            self._known[name] = None if repeated else known
            return output
        if self._remembers:
            return run()
        known = self._known[name]
        stirred = known is None or name in self._stirred or self._blank
        if stirred or not known.fits(inputs):
            return run()
        return _copied(known.output)

    def _kept(self, name: str) -> list['_Kept']:
        """What a module and those in it keep beside their inputs."""
        parts = self._cut.backbone.get_submodule(name).modules()
        return [_Kept(x) for part in parts for x in tensors(vars(part))]

    def visit(
        self, name: str, module: nn.Module, output: Tensor
    ) -> Tensor | None:
        """Look at what another module gives."""
        if is_depthwise(module):
            self.shapes[name] = output.shape
            self._see(Place('depthwise', name), output)
        second, last = self._widths
        if output.dim() > 2 and output.shape[1] in second:
            self._see(Place('module', name), output)
        if output.dim() > 1 and output.shape[-1] in last:
            self._see(Place('module-last', name), output.movedim(-1, 1))
        if self._judge is None and (second or last):
            self._outputs[name] = output.clone()
            self._given[name] += 1
        if name == self._disturb:
            return output + self._random(output.shape, second=200)
        return self._outputs[name].clone() if name == self._hold else None

    def _see(self, place: Place, x: Tensor) -> None:
        turn = self._turns[place]
        self._turns[place] += 1
        if turn and place.kind.startswith('module'):
            return  # shared, perhaps by maps of several widths
        if self._judge is None:
            self._seen.setdefault(place, []).append(Seen(x))
            return
        if self._only is not None and place not in self._only:
            return
        judged = self._judge(flat_maps(x), self._seen[place][turn])
        flags = judged.any(2).any(0).cpu()
        if self._until is not None and (flags & self._until[place]).any():
            raise _EnoughSeen
        self._flags[place] |= flags

    def _answered(self, name: str, shape: torch.Size) -> Tensor:
        if name not in self._answers:
            self._answers[name] = self._random(shape, second=-10)
            self._changes[name] = self._random(shape, second=200)
        answer = self._answers[name]
        if name in self._change:
            second = self._second(name, self._changes[name])
            which = self._change[name].reshape(-1, *[1] * (second.dim() - 2))
            change = torch.zeros_like(answer)
            self._second(name, change).copy_(second * which.to(second))
            if self._gently:
                change[(len(change) + 1) // 2 :] = 0
            return answer + change
        # never the kept tensor itself: what follows may work in place
        return answer * 0 if name == self._blank else answer.clone()

    def _random(self, shape: torch.Size, second: float) -> Tensor:
        """Small numbers; those of the second image times ``second``."""
        values = torch.rand(shape, generator=self._generator) * 0.03 + 0.02
        values[(len(values) + 1) // 2 :] *= second
        return values.to(self._images)

    def _second(self, name: str, x: Tensor) -> Tensor:
        layer = self._cut.backbone.get_submodule(name)
        return x if name == IMAGE else channels_second(layer, x)


class _EnoughSeen(BaseException):
    """A pass need not go on; no ``Exception``, which a backbone may catch."""


class _Kept:
    """A tensor in a module's attributes, and how often it was written to."""

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._version = 0 if x.is_inference() else x._version

    def __eq__(self, other: object) -> bool:
        return self._x is other._x and self._version == other._version


class _Known:
    """What a module read, and what it gave."""

    def __init__(self, inputs: Any) -> None:
        self._inputs = _copied(list(tensors(inputs)))
        self._given = inputs
        self.output: Any = None
        self.spoilt = False

    def observe(self, run: Callable[[], Any]) -> Any:
        """Run it; spoilt if it works in place, or on unknown objects."""
        output = run()
        self.output = _copied(output)
        self.spoilt = not (
            self.fits(self._given) and _plain(self._given) and _plain(output)
        )
        self._given = None
        return output

    def fits(self, inputs: Any) -> bool:
        """Whether these are the same inputs."""
        now = list(tensors(inputs))
        return len(now) == len(self._inputs) and all(
            map(torch.equal, now, self._inputs)
        )


def _copied(value: Any) -> Any:
    """With copies of all tensors: what follows may work in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> bool:
    """Whether all tensors in a value are seen, and copied."""
    if type(value) is dict:
        value = list(value.values())
    if type(value) in (list, tuple, torch.Size):
        return all(map(_plain, value))
    return value is None or isinstance(value, (Tensor, bool, int, float, str))


def _parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition('.')[0]


def _widths(backbone: nn.Module) -> tuple[set[int], set[int]]:
    """Channels that convs and linear layers write, second and last."""
    second, last = set(), set()
    for layer in filter(is_dense, backbone.modules()):
        width = layer_widths(layer)[1]
        (last if channels_last(layer) else second).add(width)
    return second, last


class _Zeros:
    """A visitor that answers zeros, so that nothing is computed for it."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self._shapes = shapes

    def answer(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        return x.new_zeros(self._shapes[name])

    def enter(self, name: str, run: Callable[[], Any], inputs: Any) -> Any:
        return run()

    def visit(self, name: str, module: nn.Module, output: Tensor) -> None:
        pass
