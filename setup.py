"""Adds files to the package that are in other folders, or are compiled.

These are the runtime's library, if there is a compiler (otherwise it is
compiled when it is first used), and the configs and tools, in the folder where
MIM and mmpretrain look for them. Everything else is in setup.cfg.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:  # no wheel can be made
        bdist_wheel = None

ROOT = Path(__file__).resolve().parent
MIM = 'configs', 'tools', 'model-index.yml'
sys.path.insert(0, str(ROOT))

from fgc_mm.runtime.building import compile_shipped  # noqa: E402
from fgc_mm.runtime.errors import LibraryError  # noqa: E402


class BuildPackage(build_py):
    """Copies the package; adds its library, the configs and the tools."""

    _libraries: tuple[str, ...] = ()
    _copied: tuple[str, ...] = ()

    def run(self) -> None:
        """As ``build_py``; a library that cannot be compiled is no error."""
        super().run()
        root = ROOT if self.editable_mode else Path(self.build_lib)
        package = root / 'fgc_mm'
        self._compile(package / 'runtime' / 'lib')
        add = link_mim if self.editable_mode else copy_mim
        self._copied = tuple(map(str, add(package / '.mim')))

    def _compile(self, folder: Path) -> None:
        try:
            self._libraries = tuple(map(str, compile_shipped(folder)))
        except (LibraryError, OSError) as error:
            print(
                'fgc_mm: the runtime is compiled when it is first used, '
                f'since here {error}',
                file=sys.stderr,
            )

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The outputs, with the files that these commands have added."""
        known = super().get_outputs(include_bytecode)
        return [*known, *self._libraries, *self._copied]


def link_mim(folder: Path) -> list[Path]:
    """Links to configs and tools of a checkout, which is used in place."""
    folder.mkdir(exist_ok=True)
    for source in mim_sources():
        link = folder / source.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(source, folder))
    return []


def copy_mim(folder: Path) -> list[Path]:
    """Copies of configs and tools; the files."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier build
    folder.mkdir(parents=True)
    for source in mim_sources():
        if source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(source, folder / source.name, ignore=ignored)
        else:
            shutil.copy(source, folder)
    return [path for path in folder.rglob('*') if path.is_file()]


def mim_sources() -> list[Path]:
    """What of MIM's names there is."""
    return [ROOT / name for name in MIM if (ROOT / name).exists()]


commands = {'build_py': BuildPackage}

if bdist_wheel is not None:

    class TaggedWheel(bdist_wheel):
        """A wheel with a library is for one platform, and any Python."""

        def get_tag(self) -> tuple[str, str, str]:
            """Python, ABI and platform."""
            build = self.get_finalized_command('build_py')
            if not build._libraries:
                return super().get_tag()
            self.root_is_pure = False
            try:
                return 'py3', 'none', super().get_tag()[2]
            finally:
                self.root_is_pure = True

    commands['bdist_wheel'] = TaggedWheel

setup(cmdclass=commands)
