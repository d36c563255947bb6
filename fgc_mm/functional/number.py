"""Numbers in a config, where a comma or a quote makes something else."""


def is_number(value: object) -> bool:
    """Whether a value is a number, not a list or text."""
    return isinstance(value, (int, float))
