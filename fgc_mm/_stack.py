"""Checks that one whole OpenMMLab stack is installed, before it is imported.

The originals (mmengine, mmcv, mmpretrain) and the maintained forks (onedl-*)
own the same module names, and pip installs one over the other without a
warning. Later some import inside them would fail; this module raises an error
with the command to run instead. It reads metadata only and imports nothing.
"""

import re
from importlib import metadata
from importlib.util import find_spec

from .errors import FGCError
from .missing_package import remedy

# The distributions that own a module; onedl-* are the forks.
_OWNERS = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
# First version that works and first that does not (mmpretrain's own ranges,
# and the versions that our code was run with).
_RANGES = {
    'mmengine': ((0, 10), (1, 0)),
    'mmcv': ((2, 0), (2, 4)),
    'mmpretrain': ((1, 2), (2, 0)),
}
_INSTALL_ORIGINALS = (
    'pip install mmengine==0.10.7 mmcv-lite==2.2.0 mmpretrain==1.2.0'
)
# Not with --no-build-isolation, with which onedl-mmcv compiles its operators.
_INSTALL_FORKS = (
    'pip install onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 '
    'onedl-mmpretrain==1.3.6'
)
_INSTALL_TORCH = 'pip install --upgrade --force-reinstall torch torchvision'


class StackError(FGCError, ImportError):
    """The OpenMMLab stack or torchvision is missing, mixed or unsuitable."""


def check_stack() -> None:
    """Raises :class:`StackError` unless one whole stack is installed.

    Checks torch and torchvision (each build of torchvision fits one torch),
    then mmengine, mmcv and mmpretrain: all three must be of one family, each
    installed once, with its files, in a version that works.
    """
    _check_torchvision()
    found = {
        module: {
            name: version for name in names if (version := _version(name))
        }
        for module, names in _OWNERS.items()
    }
    installed = [name for names in found.values() for name in names]
    forks = [name for name in installed if name.startswith('onedl-')]
    install = _INSTALL_FORKS if forks else _INSTALL_ORIGINALS
    doubled = any(len(names) > 1 for names in found.values())
    if doubled or 0 < len(forks) < len(installed):
        every = sorted(installed, key=lambda name: name in forks)
        raise StackError(
            f'{" and ".join(every)} are installed together, but they own the '
            'same module names and overwrite each other: run `pip uninstall '
            f'-y {" ".join(every)}`, then `{install}`.'
        )
    _check_complete(found, install)
    for module, versions in found.items():
        for name, version in versions.items():
            _check_version(module, name, version, install)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check_complete(found: dict[str, dict[str, str]], install: str) -> None:
    specs = {module: find_spec(module) for module in found}
    # an empty folder has a spec, too
    missing = [m for m, spec in specs.items() if not (spec and spec.origin)]
    if not missing:
        return
    damaged = any(found[module] for module in missing)
    if damaged:
        # pip considers these installed, and would do nothing.
        install = install.replace('install', 'install --force-reinstall', 1)
    raise StackError(
        f'fgc_mm needs mmengine, mmcv and mmpretrain, and '
        f'{" and ".join(missing)} {"are" if missing[1:] else "is"} '
        f'{"damaged" if damaged else "not installed"}: {remedy(install)}.'
    )


def _check_version(module: str, name: str, version: str, install: str) -> None:
    first, end = _RANGES[module]
    # '2.2.0rc1+cpu' -> (2, 2); two numbers are enough for our ranges
    release = tuple(int(part) for part in re.findall(r'\d+', version)[:2])
    if not first <= release < end:
        raise StackError(
            f'{name} {version} is installed, but fgc_mm works with '
            f'{module} >={_dotted(first)},<{_dotted(end)}: run `{install}`.'
        )


def _dotted(release: tuple[int, ...]) -> str:
    return '.'.join(map(str, release))


def _check_torchvision() -> None:
    torch, vision = _version('torch'), _version('torchvision')
    if torch is None or vision is None:
        absent = ' and '.join(
            name for name in ('torch', 'torchvision') if not _version(name)
        )
        raise StackError(
            f'fgc_mm needs torch and torchvision, and {absent} cannot be '
            f'found: {remedy("pip install torch torchvision")}.'
        )
    wanted = _pinned_torch()
    # A label (+cpu) counts only if torchvision requires one (PEP 440).
    fits = wanted in (None, torch, torch.partition('+')[0])
    # A torch of PyTorch's CPU index and PyPI's torchvision can be installed
    # together; the import fails: 'operator torchvision::nms does not exist'.
    mixed = torch.endswith('+cpu') != vision.endswith('+cpu')
    if mixed or not fits:
        raise StackError(
            f'torchvision {vision} does not fit torch {torch} (it needs '
            f'{"torch " + wanted if wanted else "the same torch"}, from the '
            f'same package index): run `{_INSTALL_TORCH}`.'
        )


def _pinned_torch() -> str | None:
    """The one torch version that the installed torchvision names, if any."""
    for requirement in metadata.requires('torchvision') or []:
        match = re.match(r'torch\s*\(?==\s*([\w.+]+)', requirement)
        if match:
            return match[1]
    return None
