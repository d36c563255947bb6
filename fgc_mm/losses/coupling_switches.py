"""Presets of the coupling loss: the paper of FGC and its published code."""

from dataclasses import dataclass, replace
from typing import Any

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.contrast import FORMS, check_eps
from fgc_mm.functional.number import is_number


@dataclass(frozen=True)
class CouplingSwitches:
    """Options in which the paper of FGC and its published code differ.

    The defaults are those of the published code; for their meaning see
    :class:`fgc_mm.losses.FeatureGateCouplingLoss`.
    """

    form: str = 'log_sum'
    eps: float = 1e-7
    include_self: bool = True
    warmup_epochs: int = 20
    normalize_rows: bool = True
    bank_init: str = 'uniform'

    @staticmethod
    def of(preset: str, **chosen: Any) -> 'CouplingSwitches':
        """A preset, with the options that are not ``None`` replaced."""
        choose('preset', preset)
        chosen = {k: v for k, v in chosen.items() if v is not None}
        if chosen.get('form') == 'sum_log':
            chosen.setdefault('eps', 0.0)  # no logarithm of a sum
        switches = replace(PRESETS[preset], **chosen)
        choose('form', switches.form)
        choose('bank_init', switches.bank_init)
        check_eps(switches.eps, switches.form)
        epochs = switches.warmup_epochs
        if not (is_number(epochs) and epochs >= 0):
            raise FGCError(
                f'warmup_epochs={epochs!r} of FeatureGateCouplingLoss is '
                'negative, or not a number; 0 means no warm-up.'
            )
        return switches


PRESETS = {
    'reference': CouplingSwitches(),
    'paper': CouplingSwitches(
        form='sum_log',
        eps=0.0,
        include_self=False,
        warmup_epochs=0,
        normalize_rows=False,
        bank_init='unit',
    ),
}
CHOICES = {
    'preset': tuple(PRESETS),
    'form': FORMS,
    'bank_init': ('uniform', 'unit'),
    'gate_vector': ('logits', 'probs'),
    'neighbor_source': ('feature', 'gate', 'label'),
}


def choose(what: str, value: str) -> str:
    """The value, if it is one of the allowed ones, else FGCError."""
    check_choice(
        f'{what}={value!r} of FeatureGateCouplingLoss', value, CHOICES[what]
    )
    return value
