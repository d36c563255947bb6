"""The configs and plans that come with the package."""

from difflib import get_close_matches
from pathlib import Path

from fgc_mm.errors import FGCError

PACKAGE = Path(__file__).resolve().parent
NAME = 'configs'


def configs_folder() -> Path:
    """The folder of the configs: in the wheel, or beside the package.

    In a checkout that is installed in place the first is a link to the other.
    """
    installed = PACKAGE / '.mim' / NAME
    return installed.resolve() if installed.is_dir() else PACKAGE.parent / NAME


def list_configs() -> list[str]:
    """Names of all configs and plans, as :func:`config_file` takes them."""
    folder = configs_folder()
    paths = [*folder.glob('*.py'), *folder.glob('studies/*.yaml')]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def find_config(name: str | Path) -> Path | None:
    """A file, or the config of the package that has this name.

    Args:
        name: A path, or a name as in ``configs/``: with or without that
            folder, with or without ``.py``.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts[:1] == (NAME,) else path.parts
    inside = configs_folder().joinpath(*parts)
    for found in (inside, inside.parent / f'{inside.name}.py'):
        if found.is_file():
            return found
    return None


def config_file(name: str | Path) -> str:
    """The path of a config.

    A config in another folder inherits from one of the package with
    ``_base_ = [__import__('fgc_mm').config_file('NAME.py')]`` (MMEngine
    evaluates ``_base_`` before it runs the imports of a config).

    Args:
        name: As for :func:`find_config`.

    Raises:
        FGCError: There is neither such a file nor such a config.

    Example:
        >>> from fgc_mm import config_file
        >>> config_file('fgc_resnet20_digits.py').rpartition('/')[2]
        'fgc_resnet20_digits.py'
    """
    found = find_config(name)
    if found is not None:
        return str(found)
    names = list_configs()
    nearest = get_close_matches(Path(name).name, names, n=1)
    remedy = f'did you mean {nearest[0]}?' if nearest else 'check the path.'
    raise FGCError(
        f'{name} is not a file, and no config of fgc_mm has that name '
        f'(`fgc-mm configs` lists them): {remedy}'
    )
