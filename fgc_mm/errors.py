"""The one error that a user of fgc_mm can cause."""


class FGCError(ValueError):
    """Bad input, told in one sentence: the value, the rule, the remedy.

    The tools print it without a traceback; every other exception is a bug.
    """
