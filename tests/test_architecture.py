"""The arrows between the rooms point one way (docs/design.md)."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'fgc_mm'
ROOMS = sorted(
    path.name for path in PACKAGE.iterdir() if (path / '__init__.py').exists()
)
# What a room may import of ours, beside itself; errors are everyone's.
ALLOWED = {
    'functional': set(),
    'memory': {'functional'},
    'gates': {'functional', 'memory', 'registry'},
    'sites': {'functional'},
    'losses': {'functional', 'memory', 'sites', 'registry'},
    'models': {'functional', 'gates', 'sites', 'losses', 'registry'},
    'engine': {
        'functional',
        'memory',
        'losses',
        'models',
        'registry',
        'sites',
    },
    'evaluation': {'functional', 'registry'},
    'datasets': {'functional', 'registry'},
    'analysis': {
        'deploy',
        'engine',
        'figure_style',
        'functional',
        'models',
        'sites',
    },
    'comparison': {
        'deploy',
        'engine',
        'figure_style',
        'functional',
        'models',
    },
    'deploy': {
        'functional',
        'gates',
        'sites',
        'models',
        'engine',
        'registry',
        'runtime',
    },
    'runtime': set(),
}
# The rooms within deploy, and what they import of it beside themselves.
DEPLOY = {
    'bundle': {'comparing'},
    'compaction': {'copying', 'firing'},
    'dynamic': {'comparing', 'copying', 'graph'},
    'export': {'compaction', 'copying', 'firing'},
    'graph': {'copying'},
    'timing': {'compaction', 'dynamic', 'export', 'firing', 'graph'},
}
# What every package may import.
EVERYWHERE = {'checked_stack', 'errors', 'version'}
# Mathematics never imports mmengine.
NO_OPENMMLAB = {'functional', 'memory', 'gates', 'sites'}
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmrazor'}
# The runtime needs numpy; what reads pictures and prints tables may be there.
RUNTIME = {'numpy', 'PIL', 'cv2', 'rich'}
SCRIPTS = {'tools', 'benchmarks', 'tests', 'configs'}


def imported(path, root=ROOT):
    """Full names of the modules that a file imports, wherever it does."""
    parts = path.relative_to(root).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level] if node.level else ()
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f'{base}.{alias.name}' for alias in node.names)


def files(room):
    return sorted((PACKAGE / room).rglob('*.py'))


def own(names):
    """The rooms and modules of ours among imported names."""
    parts = [name.split('.') for name in names]
    return {p[1] for p in parts if p[0] == 'fgc_mm' and len(p) > 1}


def outside(names):
    return {name.split('.')[0] for name in names}


def test_every_room_has_its_law():
    assert set(ROOMS) == set(ALLOWED)


@pytest.mark.parametrize('room', sorted(ALLOWED))
def test_a_room_imports_only_what_lies_below(room):
    for path in files(room):
        ours = own(imported(path)) - {room, *EVERYWHERE}
        modules = {
            name for name in ours
            if name in ROOMS or (PACKAGE / f'{name}.py').exists()
        }  # fmt: skip
        assert modules <= ALLOWED[room], path


def test_the_rooms_of_deploy():
    for room, allowed in DEPLOY.items():
        paths = files(f'deploy/{room}')
        assert paths
        for path in paths:
            names = [name.split('.') for name in imported(path)]
            ours = {n[2] for n in names if n[:2] == ['fgc_mm', 'deploy']}
            assert ours <= {room, *allowed}, path


def test_mathematics_needs_torch_only():
    known = {'torch', 'math', 'typing', 'collections', 'dataclasses',
             'fgc_mm', '__future__', 'functools', 'itertools'}  # fmt: skip
    for path in files('functional'):
        assert outside(imported(path)) <= known, path


def test_the_runtime_needs_numpy_only():
    known = {'fgc_mm', *RUNTIME, *sys.stdlib_module_names}
    for path in files('runtime'):
        assert outside(imported(path)) <= known, path
        assert own(imported(path)) <= {'runtime', 'errors'}, path


@pytest.mark.parametrize('room', sorted(NO_OPENMMLAB))
def test_openmmlab_stays_out(room):
    for path in files(room):
        assert not outside(imported(path)) & OPENMMLAB, path


def test_nothing_imports_a_script():
    for path in PACKAGE.rglob('*.py'):
        assert not outside(imported(path)) & SCRIPTS, path


def test_the_laws_see_what_they_forbid(tmp_path):
    file = tmp_path / 'fgc_mm' / 'functional' / 'bad.py'
    file.parent.mkdir(parents=True)
    file.write_text(
        'def f():\n    from ..models import CifarResNet\n'
        'from . import macs\nimport mmengine.dist\nfrom fgc_mm import gates\n'
    )
    names = list(imported(file, tmp_path))
    assert {'models', 'functional', 'gates'} <= own(names)
    assert 'mmengine' in outside(names)
