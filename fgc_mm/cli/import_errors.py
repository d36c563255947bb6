"""The error message for a package that is not installed."""

from __future__ import annotations

import re

OWN = 'fgc_mm'


def missing_import(error: ImportError) -> str | None:
    """The error message for a missing package.

    mmengine wraps import errors of ``custom_imports`` and of its visualizers,
    and in some cases names the package to install.

    Returns:
        The message, or None if no package is missing: a missing module of
        fgc_mm, or a missing name in a package, is a bug.
    """
    command, module = None, None
    cause: BaseException | None = error
    while cause is not None:
        command = command or _command(str(cause))
        if isinstance(cause, ModuleNotFoundError):
            module = cause.name
        cause = cause.__cause__ or cause.__context__
    if module is None or module.split('.')[0] == OWN:
        return None
    return (
        f'{module} cannot be imported, but the config needs it: '
        f'{command or "install a package with pip"}; a module of your own '
        "must be in the config's folder or in a folder of PYTHONPATH."
    )


def _command(text: str) -> str | None:
    found = re.search(r'"(pip install [^"]+)"', text)
    return f'run `{found[1]}`' if found else None
