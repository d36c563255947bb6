"""A gate at a site whose closed channels are not computed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fgc_mm.deploy.dynamic.gate import FusedGate, PlainGate
from fgc_mm.deploy.dynamic.kernel import load_kernel
from fgc_mm.errors import FGCError
from fgc_mm.sites import GateRecord, GateSite, SitePort
from fgc_mm.sites.call import SiteState
from fgc_mm.sites.layout import channels_second


class DynamicState(SiteState):
    """Which channels of a site are open in one call.

    Attributes:
        compact: A tensor inside the site holds the open channels of one
            image only; else it holds all, and consumers mask them.
        index: (n,) the open channels, or ``None``: all are there.
        factors: (n,) what the open ones are multiplied with, if not 1.
        empty: No channel is open. One of zeros then stands in, since not
            every module takes a tensor without channels.
    """

    index: Tensor | None = None
    factors: Tensor | None = None
    empty = False

    def __init__(self, port: DynamicPort, compact: bool) -> None:
        super().__init__(port, keep=False)
        self.compact = compact

    @property
    def mask(self) -> Tensor | None:
        """(N, C) to multiply whole tensors with; ``None``: nothing."""
        if self.compact:
            return None
        if self.decision is None:
            raise FGCError(
                f'{self.port.site.producer} had not run when one of its '
                'consumers did, so its gate could not decide; leave this '
                'site out of sites.'
            )
        return self.decision.mask


class DynamicPort:
    """What the layers of a site ask: which channels are open now.

    As :class:`SitePort`, it leaves the state of a call to the call.

    Attributes:
        site: The site.
        compact: Whether closed channels are skipped.
        fusible: Whether the kernel has such a gate.
    """

    def __init__(
        self, site: GateSite, gate: nn.Module, compiled: bool
    ) -> None:
        self.site = site
        self.name = site.name
        self.compact = True
        self.fusible = compiled and FusedGate.can(gate)
        self.use(gate)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _fused=None)  # made anew

    def is_attached(self, layer: nn.Module | None) -> bool:
        """Whether the gate reads the input of this layer."""
        return getattr(layer, 'writes', None) is self

    def begin(self, keep: bool, skip: bool = True) -> DynamicState:
        """The site's state in a new call.

        Args:
            keep: Refused.
            skip: Whether a compact port's channels may be skipped.
        """
        if keep:
            raise FGCError(
                'keep_activation=True asks for channels that dynamic '
                'execution never computes; take the masked model.'
            )
        return DynamicState(self, self.compact and skip)

    def record(self, state: DynamicState) -> GateRecord | None:
        """What the gate did in a call, if it did."""
        if state.decision is None:
            return None
        return GateRecord(self.site, None, *state.decision)

    def decide(
        self,
        state: DynamicState,
        layer: nn.Module,
        x: Tensor,
        listed: Tensor | None,
    ) -> None:
        """The gate looks at the producer's input.

        Args:
            state: Of the call.
            layer: The producer.
            x: Its input, or the listed channels of it.
            listed: The channels that ``x`` holds; ``None``: all.
        """
        if state.decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        x = channels_second(layer, x)
        gate = self._plain
        if self.fusible and x.dim() == 4:
            gate = self._fuse()
        state.decision, index, factors = gate.run(x, listed)
        if not state.compact:
            return
        if len(x) != 1:
            raise FGCError(
                f'a batch of {len(x)} images came to {self.site.producer}, '
                'but each has channels of its own; give the model, not its '
                'backbone, the batch.'
            )
        state.factors = factors
        state.empty = len(index) == 0
        if factors is not None or len(index) < self.site.channels:
            state.index = index

    def use(self, gate: nn.Module) -> None:
        """Let this gate decide, of the kind of the one before."""
        self.gate = gate
        self._plain = PlainGate(gate, self.site.in_channels)
        self._fused: FusedGate | None = None

    def forget(self) -> None:
        """The gate's weights have changed."""
        self._fused = None

    @property
    def threshold(self) -> float | None:
        """Of a gate that the kernel has."""
        return self.gate.threshold if self.fusible else None

    def compiled_gate(self) -> Any:
        """The kernel's gate, of a port that is fusible."""
        return self._fuse().compiled

    def _fuse(self) -> FusedGate:
        if self._fused is None or self._fused.threshold != self.threshold:
            self._fused = FusedGate(self.gate, load_kernel()[0])
        return self._fused


class WideningPort(SitePort):
    """A masked site whose producer may read another's open channels.

    Args:
        site: The site.
        gate: Its gate.
        why: Why its channels cannot be skipped, in words.
    """

    def __init__(self, site: GateSite, gate: nn.Module, why: str) -> None:
        super().__init__(site, gate)
        self.why = why

    def _ask(self, layer: nn.Module, x: Tensor) -> Any:
        widen = getattr(layer, 'widen', None)
        if widen is not None:
            x = widen(x)
        return super()._ask(layer, x)
