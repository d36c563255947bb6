"""Compiles the runtime's library into the package, if a compiler is there.

All else is in setup.cfg. Without a compiler the package is complete all the
same: the library is compiled when it is first used.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:  # nobody makes a wheel
        bdist_wheel = None

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from fgc_mm.runtime.building import compile_shipped  # noqa: E402
from fgc_mm.runtime.errors import LibraryError  # noqa: E402


class BuildPackage(build_py):
    """Copies the package, and compiles its library beside."""

    def run(self) -> None:
        """As ``build_py``; a library that cannot be made is no failure."""
        super().run()
        package = ROOT if self.editable_mode else Path(self.build_lib)
        folder = package / 'fgc_mm' / 'runtime' / 'lib'
        try:
            self._libraries = list(map(str, compile_shipped(folder)))
        except (LibraryError, OSError) as error:
            self._libraries = []
            print(
                'fgc_mm: the runtime is compiled when it is first used, '
                f'since here {error}',
                file=sys.stderr,
            )

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The library's files among them."""
        return [*super().get_outputs(include_bytecode), *self._libraries]

    def initialize_options(self) -> None:
        """As ``build_py``."""
        super().initialize_options()
        self._libraries: list[str] = []


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
