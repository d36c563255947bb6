"""A gate at its site: hooks on the backbone's own modules."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import mask_channels
from fgc_mm.sites.record import GateRecord
from fgc_mm.sites.site import GateSite


class SitePort:
    """Joins a gate to a site without a change to the backbone's code.

    Two kinds of forward-pre-hook: on the producer, whose input the gate
    reads, and on each consumer, whose input is masked. They do nothing while
    the port is closed, so the backbone on its own is the dense network.

    The hooks are bound methods, which ``copy.deepcopy`` (EMA) copies along
    with the port; a closure would leave the copy tied to the original gate.
    """

    def __init__(self, site: GateSite, gate: nn.Module) -> None:
        self.site = site
        self.gate = gate
        self._open = False
        self._keep_activation = False
        self._decision: Any | None = None
        self._activation: Tensor | None = None

    def attach(self, find: Callable[[str], nn.Module]) -> None:
        """Hang the hooks on the modules that ``find`` gives for a path."""
        find(self.site.producer).register_forward_pre_hook(self._decide)
        for path in self.site.consumers:
            find(path).register_forward_pre_hook(self._mask)

    def open(self, keep_activation: bool) -> None:
        """Let the gate act until :meth:`close`."""
        self._open = True
        self._keep_activation = keep_activation

    def close(self) -> GateRecord | None:
        """End the gate's action; the record of what it did, if it did."""
        decision, activation = self._decision, self._activation
        self._open, self._decision, self._activation = False, None, None
        if decision is None:
            return None
        return GateRecord(self.site, activation, *decision)

    def _decide(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not self._open:
            return
        if self._decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        self._decision = self.gate(args[0])

    def _mask(
        self, module: nn.Module, args: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        if not self._open:
            return None
        if self._decision is None:
            raise FGCError(
                f'{self.site.producer} had not run when one of its consumers '
                'did, so its gate could not decide; leave this site out of '
                'sites.'
            )
        if self._keep_activation:
            self._activation = args[0]
        masked = mask_channels(args[0], self._decision.mask)
        return (masked, *args[1:])
