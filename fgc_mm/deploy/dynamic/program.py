"""A dynamic network as one call of the kernel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from fgc_mm.deploy.dynamic.arena import places
from fgc_mm.deploy.dynamic.layers import DynamicConv
from fgc_mm.deploy.dynamic.port import DynamicPort
from fgc_mm.deploy.dynamic.record import (
    ADD,
    CONV,
    LINEAR,
    MEAN,
    POOL,
    NotRecordable,
    Recorder,
    Step,
    fused,
)
from fgc_mm.functional.channel_groups import first_of_groups
from fgc_mm.sites import GateRecord, GateSite
from fgc_mm.sites.layout import is_depthwise

# logits and mask of all sites, (N, sum of C)
Decisions = tuple[Tensor, Tensor]
SLACK = 256  # floats behind the last map that a vector may read
LINE = 16  # floats of a cache line


@dataclass
class Place:
    """Where a value lies.

    Attributes:
        shape: (C, H, W).
        pad: Zeros around every channel, so that a conv reads it in place.
        site: The site whose open channels it holds, or ``-1``.
        channel: Floats from one channel to the next.
    """

    shape: tuple[int, ...]
    pad: int = 0
    site: int = -1

    @property
    def channel(self) -> int:
        """Whole cache lines, but not all in one set of the cache."""
        _, height, width = self.shape
        pad, row = self.pad, width + self.pad
        if height * width == 1 and not pad:
            return 1  # a vector
        floats = (height + 2 * pad) * row + (2 * pad if pad else 0)
        floats = -(-floats // LINE) * LINE
        return floats + (LINE if floats % 1024 == 0 else 0)

    @property
    def floats(self) -> int:
        """Of all channels."""
        return self.shape[0] * self.channel


class NetworkProgram:
    """Runs a network with its gates, image by image, without Python.

    Args:
        network: Its layers as :func:`fold` makes them.
        ports: One per site, in order; without any it runs without gates.
        image: (1, 3, H, W), of the size that it is for.
        kernel: The compiled kernel.
        behind: What comes behind the network, if that is a part of it.

    Attributes:
        names: What every step is, in words.
        layers: For every step the layer, of a gate the one that asks it.

    Raises:
        NotRecordable: The network does something that the kernel has no
            step for; the text says what.
    """

    def __init__(
        self,
        network: nn.Module,
        ports: Sequence[Any],
        image: Tensor,
        kernel: ModuleType,
        behind: Sequence[nn.Module] = (),
    ) -> None:
        self._ports = _fusible(ports)
        self._paths = {m: path for path, m in network.named_modules()}
        whole = nn.Sequential(network, *behind) if behind else network
        recording = Recorder().record(whole, image)
        steps = fused(recording)
        self._places = [Place(shape) for shape in recording.shapes]
        self._find_sites(steps)
        self._find_pads(steps)
        offsets, floats = self._find_offsets(steps, recording.outputs)
        channels = [port.site.channels for port in self._ports]
        self._program = kernel.Program(floats + SLACK, channels)
        for place, offset in zip(self._places, offsets):
            self._program.value(
                offset, *place.shape, place.pad, place.channel, place.site
            )
        self.names: list[str] = []
        self.layers: list[Any] = []
        for step in steps:
            self._add(step, kernel)
        for value in recording.outputs:
            if self._places[value].site >= 0:
                raise NotRecordable('it returns channels of a site')
            self._program.output(value)
        self._flat, self._bare = recording.flat, recording.bare
        self._widths = channels
        for port in self._ports:
            if f'gate of {port.site.producer}' not in self.names:
                raise NotRecordable(f'{port.site.producer} did not run')

    def run(
        self, images: Tensor
    ) -> tuple[Tensor | tuple[Tensor, ...], Decisions]:
        """What the network returns for (N, 3, H, W), and the gates say."""
        outputs, *decisions = self._program.run(images)
        for number, flat in enumerate(self._flat):
            if flat:
                outputs[number] = outputs[number].flatten(1)
        answer = outputs[0] if self._bare else tuple(outputs)
        return answer, tuple(decisions)

    def records(self, decisions: Decisions) -> list[GateRecord]:
        """As those of :meth:`GatedBackbone.forward_gated`."""
        split = [values.split(self._widths, dim=1) for values in decisions]
        return [
            _record(port.site, logits, mask)
            for port, logits, mask in zip(self._ports, *split)
        ]

    def seconds(self, image: Tensor, repeats: int) -> list[float]:
        """Time of every step for one image, the least of the repeats."""
        return self._program.profile(image, repeats)

    def keep_alone(self, names: Collection[str]) -> None:
        """Let these steps, and no others, run on one thread each."""
        self._program.keep_alone([name in names for name in self.names])

    def _number(self, port: DynamicPort | None, compact: bool = False) -> int:
        """Of a site: ``-1`` for none, and for one that is not compact."""
        asleep = port not in self._ports or (compact and not port.compact)
        return -1 if asleep else self._ports.index(port)

    def _find_sites(self, steps: Sequence[Step]) -> None:
        """Which values hold listed channels only."""
        for step in steps:
            site, *added = [self._places[value].site for value in step.reads]
            if step.kind in (ADD, LINEAR):
                added.append(site)
            if any(other >= 0 for other in added):
                raise NotRecordable(f"a {step.kind} takes a site's channels")
            if step.kind == CONV:
                site = self._site_of_conv(step.module, site)
            self._places[step.gives].site = site

    def _site_of_conv(self, layer: DynamicConv, site: int) -> int:
        """Whose channels it gives, from the right ones."""
        if layer.engine_name != 'kernel':
            raise NotRecordable(
                f'the kernel has no conv like {self._paths[layer]}'
            )
        reads, writes = layer.reads, layer.writes
        if is_depthwise(layer) and reads is None:
            reads = writes
        if site != self._number(reads, compact=True):
            raise NotRecordable(
                f"{self._paths[layer]} reads another site's channels"
            )
        return self._number(writes, compact=True)

    def _find_pads(self, steps: Sequence[Step]) -> None:
        """Zeros around what a conv without a stride reads."""
        for step in steps:
            if step.kind == CONV and step.module.stride == (1, 1):
                place = self._places[step.reads[0]]
                place.pad = max(place.pad, *step.module.padding)
        self._places[0].pad = 0  # the image is not ours

    def _find_offsets(
        self, steps: Sequence[Step], outputs: Sequence[int]
    ) -> tuple[list[int], int]:
        lives = [[-1, -1] for _ in self._places]
        for number, step in enumerate(steps):
            lives[step.gives] = [number, number]
            for value in step.reads:
                lives[value][1] = number
        for value in outputs:
            lives[value][1] = len(steps)
        sizes = [
            place.floats if value and lives[value] != [-1, -1] else 0
            for value, place in enumerate(self._places)
        ]
        return places(sizes, [tuple(life) for life in lives])

    def _add(self, step: Step, kernel: ModuleType) -> None:
        """One step to the program; a gate before the conv that asks it."""
        x, *rest = step.reads
        added = rest[0] if rest else -1
        layer = step.module
        if step.kind == CONV:
            self._add_conv(step, x, added)
        elif step.kind == POOL:
            self._program.max_pool(x, step.gives, *layer.geometry)
            self._named(self._paths[layer], layer)
        elif step.kind == MEAN:
            self._program.mean(x, step.gives)
            self._named(step.kind, None)
        elif step.kind == LINEAR:
            self._program.linear(
                step.weight.detach().t().contiguous(), step.bias, x, step.gives
            )
            self._named(step.kind, None)
        else:
            self._program.copy(
                x, step.gives, added, *step.clamp, step.stride, step.first
            )
            self._named(step.kind, None)

    def _add_conv(self, step: Step, x: int, added: int) -> None:
        layer, path = step.module, self._paths[step.module]
        site, reads = self._number(layer.writes), self._number(layer.reads)
        if layer.decides and site >= 0:
            gate = layer.writes.compiled_gate()
            self._program.gate(gate, x, reads, site)
            self._named(f'gate of {path}', layer)
        self._program.conv(
            layer.engine('kernel'),
            x,
            step.gives,
            reads,
            self._number(layer.writes, compact=True),
            added,
            *step.clamp,
        )
        self._named(path, layer)

    def _named(self, name: str, layer: Any) -> None:
        self.names.append(name)
        self.layers.append(layer)


def _record(site: GateSite, logits: Tensor, mask: Tensor) -> GateRecord:
    """From every channel's logit, of one site."""
    logits = first_of_groups(logits, site.group_sizes)
    return GateRecord(site, None, logits, logits.sigmoid(), mask)


def _fusible(ports: Sequence[Any]) -> list[DynamicPort]:
    for port in ports:
        if not isinstance(port, DynamicPort):
            raise NotRecordable(f'{port.site.name} is masked')
        if not port.fusible:
            raise NotRecordable('the kernel has no such gate')
    return list(ports)
