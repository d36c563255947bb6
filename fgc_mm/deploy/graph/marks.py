"""Operations that mark gate decisions and masks for a capture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.sites import GateHooks, GateSite
from fgc_mm.sites.call import state_of

_LIBRARY = torch.library.Library('fgc_mm', 'FRAGMENT')
for schema in (
    'decision(Tensor mask, Tensor[] records, int site) -> Tensor',
    'mask(Tensor x, Tensor mask, int site, int place) -> Tensor',
    'feature(Tensor x) -> Tensor',
):
    _LIBRARY.impl(
        _LIBRARY.define(schema),
        lambda x, *_: x.clone(),
        'CompositeExplicitAutograd',
    )
DECISION = torch.ops.fgc_mm.decision.default
MASK = torch.ops.fgc_mm.mask.default
# a backbone's output, which the modules after it may change in place
FEATURE = torch.ops.fgc_mm.feature.default
BRANCH_END = -1  # index of a residual branch's end, instead of a consumer's


class MarkingHooks(GateHooks):
    """Gate hooks that mark decisions and masks but do not mask.

    Their masks and decisions have the site's ``number`` among the sites.
    """

    def __init__(self, site: GateSite, gate: nn.Module, number: int) -> None:
        super().__init__(site, gate)
        self.number = number

    def _attach_masks(self, find: Callable[[str], nn.Module]) -> None:
        for index, consumer in enumerate(self.site.consumers):
            hook = partial(self._mark_input, index)
            find(consumer.path).register_forward_pre_hook(hook)
        if self.site.branch_end is not None:
            module = find(self.site.branch_end)
            module.register_forward_hook(self._mark_output)

    def _run_gate(self, layer: nn.Module, x: Tensor) -> Any:
        decision = super()._run_gate(layer, x)
        records = decision._asdict()
        mask = DECISION(records.pop('mask'), [*records.values()], self.number)
        return decision._replace(mask=mask)

    def _mark_input(self, index: int, _: nn.Module, args: tuple) -> Any:
        state = state_of(self)
        if state is None:
            return None
        mask = self._current_mask(state)
        return (MASK(args[0], mask, self.number, index), *args[1:])

    def _mark_output(self, _: nn.Module, __: Any, output: Tensor) -> Any:
        state = state_of(self)
        if state is None:
            return None
        state.masked_at_end = True
        return MASK(output, self._current_mask(state), self.number, BRANCH_END)
