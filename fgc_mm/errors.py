"""The one error that a user of fgc_mm can cause."""

from collections.abc import Iterable


class FGCError(ValueError):
    """Bad input, told in one sentence: the value, the rule, the remedy.

    The tools print it without a traceback; every other exception is a bug.
    """


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Check that a value is one of the allowed ones.

    Args:
        what: Names the value in the message: ``"target='x' of XLoss"``.
        value: The value.
        choices: The allowed ones.

    Raises:
        FGCError: It is not.
    """
    if value not in (known := tuple(choices)):
        raise FGCError(f'{what} is unknown; choose among {", ".join(known)}.')
