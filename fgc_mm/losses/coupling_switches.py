"""Options in which the paper of FGC and its published code differ."""

from dataclasses import dataclass, replace
from typing import Any

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.contrast import FORMS, check_eps
from fgc_mm.functional.number import is_number


@dataclass(frozen=True)
class CouplingSwitches:
    """Options in which the paper of FGC and its published code differ.

    The defaults are those of the published code.

    Attributes:
        form: ``'log_sum'`` or ``'sum_log'``.
        eps: Added to the positives' summed probability.
        include_self: Whether an image is its own positive.
        warmup_epochs: Coupled epochs in which it is the only positive.
        normalize_rows: Whether bank rows are normalised to unit length.
        bank_init: ``'uniform'`` or ``'unit'``.
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
    """Check that a value is one of the allowed ones, and return it.

    Raises:
        FGCError: It is not.
    """
    check_choice(
        f'{what}={value!r} of FeatureGateCouplingLoss', value, CHOICES[what]
    )
    return value
