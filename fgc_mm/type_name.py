"""Names of the classes that parts of a config are built of."""

from collections.abc import Mapping


def type_name(part: object) -> str:
    """Name of the class of a part of a config, without module and scope.

    Its ``type`` is a name, as ``'fgc_mm.L0Loss'``, or in a config in pure
    Python the class itself.

    Args:
        part: The dict; or an object, whose own class is meant.

    Returns:
        The name; '' if the dict has no type.
    """
    kind = part.get('type', '') if isinstance(part, Mapping) else type(part)
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]
