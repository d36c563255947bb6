"""The error for bad input."""

from collections.abc import Iterable


class FGCError(ValueError):
    """Bad input; the message is one sentence with value, rule and remedy.

    The tools print it without a traceback; every other exception is a bug.
    """


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Check that a value is one of the allowed ones.

    Args:
        what: The value in the message, such as ``"target='x' of XLoss"``.
        value: The value.
        choices: The allowed ones.

    Raises:
        FGCError: It is not.
    """
    if value not in (known := tuple(choices)):
        raise FGCError(f'{what} is unknown; choose among {", ".join(known)}.')
