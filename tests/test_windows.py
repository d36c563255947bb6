"""Modules can be imported where POSIX's modules and signals do not exist."""

import ast
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    [*(ROOT / 'fgc_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
)
MODULES = {
    'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'syslog', 'termios',
    'tty',
}  # fmt: skip
SIGNALS = [
    name for name in dir(signal)
    if name.startswith('SIG') and name not in {
        'SIGABRT', 'SIGFPE', 'SIGILL', 'SIGINT', 'SIGSEGV', 'SIGTERM',
        'SIG_DFL', 'SIG_IGN',
    }
]  # fmt: skip
FUNCTIONS = {
    'signal': {
        *SIGNALS, 'alarm', 'pthread_sigmask', 'setitimer', 'sigwaitinfo',
        'siginterrupt',
    },
    'os': {
        'fork', 'getpgid', 'getuid', 'geteuid', 'killpg', 'mkfifo', 'nice',
        'register_at_fork', 'sched_getaffinity', 'setsid', 'uname',
        'WNOHANG', 'O_NONBLOCK', 'RTLD_NOW', 'RTLD_GLOBAL',
    },
}  # fmt: skip
# those that name a signal or a module of POSIX at all
RELOADED = [
    'fgc_mm.cli.commands.compare',
    'fgc_mm.cli.torchrun',
    'fgc_mm.comparison.local_executor',
    'fgc_mm.reliability.missing_ranks',
    'fgc_mm.reliability.stop_signal',
    'fgc_mm.reliability.work_dir_lock',
    'fgc_mm.runtime.building',
    'fgc_mm.runtime.cache',
]


def at_import(node):
    """The nodes that run when a module is imported, but for guarded ones."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try):
            continue  # its handler is the guard
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            defaults = [*child.args.defaults, *child.args.kw_defaults]
            for default in filter(None, defaults):
                yield from [default, *at_import(default)]
            continue
        yield child
        yield from at_import(child)


def needs_posix(source):
    """What of POSIX an import of this source needs."""
    for node in at_import(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            yield from {node.module} & MODULES
            yield from names & FUNCTIONS.get(node.module, set())
        elif isinstance(node, ast.Attribute):
            owner = getattr(node.value, 'id', None)
            if node.attr in FUNCTIONS.get(owner, ()):
                yield f'{owner}.{node.attr}'


def test_no_import_needs_posix():
    found = {
        str(path.relative_to(ROOT)): names
        for path in FILES
        if (names := [*needs_posix(path.read_text())])
    }
    assert not found


@pytest.mark.parametrize(
    'source',
    [
        'import fcntl',
        'from pwd import getpwuid',
        'from signal import SIGUSR1',
        'import signal\nSIGNALS = signal.SIGTERM, signal.SIGUSR1',
        'import os\nclass A:\n    cores = os.sched_getaffinity(0)',
        'import signal\ndef f(x=signal.SIGKILL): pass',
    ],
)
def test_the_search_finds(source):
    assert [*needs_posix(source)]


@pytest.mark.parametrize(
    'source',
    [
        'try:\n    import fcntl\nexcept ImportError:\n    fcntl = None',
        'import signal\ndef f():\n    return signal.SIGUSR1',
        "import signal\nX = getattr(signal, 'SIGUSR1', None)",
    ],
)
def test_the_search_passes(source):
    assert not [*needs_posix(source)]


@pytest.mark.parametrize('name', RELOADED)
def test_a_module_is_imported_without_posix(name, monkeypatch):
    importlib.import_module(name)  # what it imports of others is there
    for module in MODULES:
        monkeypatch.setitem(sys.modules, module, None)
    for owner in (signal, os):
        for attribute in FUNCTIONS[owner.__name__]:
            monkeypatch.delattr(owner, attribute, raising=False)
    again = f'again_{name.replace(".", "_")}'
    assert runpy.run_module(name, run_name=again, alter_sys=True)
