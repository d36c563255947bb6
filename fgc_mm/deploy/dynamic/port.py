"""A gate at a site whose closed channels are not computed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fgc_mm.deploy.dynamic.gate import FusedGate, PlainGate
from fgc_mm.deploy.dynamic.kernel import load_kernel
from fgc_mm.errors import FGCError
from fgc_mm.gates import GateDecision
from fgc_mm.sites import GateRecord, GateSite, SitePort
from fgc_mm.sites.layout import channels_second


class DynamicPort:
    """What the layers of a site ask: which channels are open now.

    It opens and closes as a :class:`SitePort` does, and gives the same
    record. While it is ``compact``, a tensor inside the site holds the open
    channels of one image only; else it holds all, and consumers mask them.

    Attributes:
        site: The site.
        compact: Whether closed channels are skipped.
        fusible: Whether the kernel has such a gate.
        index: (n,) the open channels, or ``None``: all are there.
        factors: (n,) what the open ones are multiplied with, if not 1.
        empty: No channel is open. One of zeros then stands in, since not
            every module takes a tensor without channels.
    """

    def __init__(
        self, site: GateSite, gate: nn.Module, compiled: bool
    ) -> None:
        self.site = site
        self.compact = True
        self.fusible = compiled and FusedGate.can(gate)
        self.use(gate)
        self._open = False
        self._clear()

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _fused=None)  # made anew

    def _clear(self) -> None:
        self._decision: GateDecision | None = None
        self.index: Tensor | None = None
        self.factors: Tensor | None = None
        self.empty = False

    def open(self, keep_activation: bool) -> None:
        """Let the gate act until :meth:`close`."""
        if keep_activation:
            raise FGCError(
                'keep_activation=True asks for channels that dynamic '
                'execution never computes; take the masked model.'
            )
        self._open = True

    def close(self) -> GateRecord | None:
        """End the gate's action; the record of what it did, if it did."""
        decision = self._decision
        self._open = False
        self._clear()
        if decision is None:
            return None
        return GateRecord(self.site, None, *decision)

    def decide(
        self, layer: nn.Module, x: Tensor, listed: Tensor | None
    ) -> None:
        """The gate looks at the producer's input.

        Args:
            layer: The producer.
            x: Its input, or the listed channels of it.
            listed: The channels that ``x`` holds; ``None``: all.
        """
        if not self._open:
            return
        if self._decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        x = channels_second(layer, x)
        gate = self._plain
        if self.fusible and x.dim() == 4:
            gate = self._fuse()
        self._decision, index, factors = gate.run(x, listed)
        if not self.compact:
            return
        if len(x) != 1:
            raise FGCError(
                f'a batch of {len(x)} images came to {self.site.producer}, '
                'but each has channels of its own; give the model, not its '
                'backbone, the batch.'
            )
        self.factors = factors
        self.empty = len(index) == 0
        if factors is not None or len(index) < self.site.channels:
            self.index = index

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

    @property
    def mask(self) -> Tensor | None:
        """(N, C) to multiply whole tensors with; ``None``: nothing."""
        if not self._open or self.compact:
            return None
        if self._decision is None:
            raise FGCError(
                f'{self.site.producer} had not run when one of its consumers '
                'did, so its gate could not decide; leave this site out of '
                'sites.'
            )
        return self._decision.mask


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

    def _decide(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        widen = getattr(layer, 'widen', None)
        x = args[0] if widen is None else widen(args[0])
        super()._decide(layer, (x, *args[1:]))
