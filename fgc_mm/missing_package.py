"""Messages for a package that is not installed."""

import sys
from pathlib import Path

# made by `make install`, beside the package in a checkout
ENVIRONMENT = Path(__file__).resolve().parents[1] / '.venv'


def remedy(command: str) -> str:
    """The command that a user should run.

    Args:
        command: Installs the package.

    Returns:
        ``command``; or, if another Python runs than that of the checkout's
        environment, the activation of the environment.
    """
    running = Path(sys.executable).parent.parent  # not its link's target
    if running.resolve() == ENVIRONMENT.resolve() or not ENVIRONMENT.is_dir():
        return f'run `{command}`'
    return (
        f'{sys.executable} is not the Python of {ENVIRONMENT.name}, where '
        f'`make install` has installed everything; run `source '
        f'{ENVIRONMENT}/bin/activate` first'
    )


def missing_module(error: ModuleNotFoundError) -> str | None:
    """Name of the module that is not installed.

    Returns:
        The name; None for a module of fgc_mm, which is a bug, and for an
        error that names no module.
    """
    package = (error.name or '').split('.')[0]
    return None if package in ('', 'fgc_mm') else error.name


def missing_sentence(error: ModuleNotFoundError) -> str | None:
    """The error message for a package that fgc_mm imports, or None."""
    module = missing_module(error)
    if module is None:
        return None
    package = module.split('.')[0]
    return (
        f'{package} is not installed, but fgc_mm imports it: '
        f'{remedy(f"pip install {package}")}.'
    )
