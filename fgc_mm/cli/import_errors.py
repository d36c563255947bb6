"""A sentence about a package that is not there."""

from __future__ import annotations

import re

OWN = 'fgc_mm'


def missing_import(error: ImportError) -> str | None:
    """Names the missing package of an import that failed.

    mmengine wraps what ``custom_imports`` and its visualizers cannot import,
    and says in some cases what to install.

    Returns:
        One sentence, or None where no package is missing: a module of ours,
        or a name within a package, is a bug.
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
        f'{module} cannot be imported, and the config needs it: '
        f'{command or "a package is installed with pip"}; one of your own '
        'lies beside the config, or in a folder of PYTHONPATH.'
    )


def _command(text: str) -> str | None:
    found = re.search(r'"(pip install [^"]+)"', text)
    return f'run `{found[1]}`' if found else None
