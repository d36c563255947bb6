"""Imports between the packages point one way (docs/design.md)."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'fgc_mm'
PACKAGES = sorted(
    path.name for path in PACKAGE.iterdir() if (path / '__init__.py').exists()
)
# What a package may import of ours, beside itself and EVERYWHERE.
ALLOWED = {
    'functional': set(),
    'memory': {'functional', 'async_read'},
    'gates': {'functional', 'memory', 'registry'},
    'sites': {'functional'},
    'losses': {'functional', 'async_read', 'memory', 'sites', 'registry'},
    'models': {
        'functional',
        'gates',
        'losses',
        'registry',
        'reliability',
        'sites',
    },
    'reliability': {'async_read', 'registry'},
    'engine': {
        'figure_style',
        'functional',
        'async_read',
        'losses',
        'memory',
        'models',
        'registry',
        'reliability',
        'sites',
    },
    'evaluation': {'functional', 'registry'},
    'datasets': {'functional', 'registry'},
    'deploy': {
        'functional',
        'gates',
        'models',
        'registry',
        'reliability',
        'runtime',
        'sites',
    },
    'analysis': {
        'deploy',
        'figure_style',
        'functional',
        'models',
        'reliability',
        'sites',
    },
    'comparison': {
        'command_process',
        'deploy',
        'engine',
        'figure_style',
        'functional',
        'models',
        'registry',
        'reliability',
        'runtime',
    },
    'cli': {
        'analysis',
        'command_process',
        'comparison',
        'deploy',
        'engine',
        'evaluation',
        'figure_style',
        'functional',
        'losses',
        'models',
        'registry',
        'reliability',
        'runtime',
        'sites',
    },
    'runtime': set(),
}
# The packages within deploy, and what they import of it beside themselves.
DEPLOY = {
    'bundle': {'comparing'},
    'compaction': {'changed_masks', 'comparing', 'firing'},
    'dynamic': {'changed_masks', 'comparing', 'firing', 'graph'},
    'export': {
        'changed_masks',
        'comparing',
        'compaction',
        'firing',
    },
    'graph': {'changed_masks', 'comparing'},
    'timing': {
        'comparing',
        'compaction',
        'dynamic',
        'export',
        'firing',
        'graph',
    },
}
# What of the command line is imported before the arguments are parsed, with
# cli/parsers.
LIGHT = ('__init__', '__main__', 'arguments', 'command_table', 'dispatch')
# Modules that docs/design.md does not name in its table of packages.
SMALL = {
    'async_read',
    'command_process',
    'registry',
    'type_name',
    'yapf_import',
}
# What every package may import.
EVERYWHERE = {
    'checked_stack',
    'config_files',
    'error_line',
    'errors',
    'exit_status',
    'missing_package',
    'type_name',
    'version',
    'yapf_import',
}
# Mathematics never imports mmengine.
NO_OPENMMLAB = {'functional', 'memory', 'gates', 'sites'}
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmrazor'}
# The runtime needs numpy; what reads pictures may be there.
RUNTIME = {'numpy', 'PIL', 'cv2'}
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


def files(package):
    return sorted((PACKAGE / package).rglob('*.py'))


def own(names):
    """The packages and modules of ours among imported names."""
    parts = [name.split('.') for name in names]
    return {p[1] for p in parts if p[0] == 'fgc_mm' and len(p) > 1}


def outside(names):
    return {name.split('.')[0] for name in names}


def test_every_package_has_its_rule():
    assert set(PACKAGES) == set(ALLOWED)


@pytest.mark.parametrize('package', sorted(ALLOWED))
def test_the_documented_imports(package):
    rows = (ROOT / 'docs/design.md').read_text().splitlines()
    (row,) = [row for row in rows if row.startswith(f'| `{package}/` |')]
    documented = row.split('|')[3].replace(',', ' ').split()
    assert set(documented) == ALLOWED[package] - SMALL


@pytest.mark.parametrize('package', PACKAGES)
def test_a_package_imports_only_what_lies_below(package):
    for path in files(package):
        ours = own(imported(path)) - {package, *EVERYWHERE}
        modules = {
            name for name in ours
            if name in PACKAGES or (PACKAGE / f'{name}.py').exists()
        }  # fmt: skip
        assert modules <= ALLOWED[package], path


def test_the_packages_of_deploy():
    for package, allowed in DEPLOY.items():
        paths = files(f'deploy/{package}')
        assert paths
        for path in paths:
            names = [name.split('.') for name in imported(path)]
            ours = {n[2] for n in names if n[:2] == ['fgc_mm', 'deploy']}
            assert ours <= {package, *allowed}, path


def test_mathematics_needs_torch_only():
    known = {'torch', 'math', 'typing', 'collections', 'dataclasses',
             'fgc_mm', '__future__', 'functools', 'itertools'}  # fmt: skip
    for path in files('functional'):
        names = list(imported(path))
        # of scipy, the table of one function that torch does not have
        table = {'scipy'} if path.name == '_beta.py' else set()
        assert outside(names) <= known | table, path
        assert 'torch.distributed' not in names, path


def test_the_runtime_needs_numpy_only():
    known = {'fgc_mm', *RUNTIME, *sys.stdlib_module_names}
    for path in files('runtime'):
        assert outside(imported(path)) <= known, path
        allowed = {'runtime', 'errors', 'missing_package'}
        assert own(imported(path)) <= allowed, path


@pytest.mark.parametrize('package', sorted(NO_OPENMMLAB))
def test_mathematics_imports_no_openmmlab(package):
    for path in files(package):
        assert not outside(imported(path)) & OPENMMLAB, path


def test_the_command_line_starts_without_torch():
    known = {'fgc_mm', *sys.stdlib_module_names}
    light = [PACKAGE / 'cli' / f'{name}.py' for name in LIGHT]
    for path in (*light, *files('cli/parsers')):
        names = list(imported(path))
        assert outside(names) <= known, path
        assert own(names) <= {'cli', *EVERYWHERE}, path


def test_nothing_imports_a_script():
    for path in PACKAGE.rglob('*.py'):
        assert not outside(imported(path)) & SCRIPTS, path


def test_the_rules_find_forbidden_imports(tmp_path):
    file = tmp_path / 'fgc_mm' / 'functional' / 'bad.py'
    file.parent.mkdir(parents=True)
    file.write_text(
        'def f():\n    from ..models import CifarResNet\n'
        'from . import macs\nimport mmengine.dist\nfrom fgc_mm import gates\n'
    )
    names = list(imported(file, tmp_path))
    assert {'models', 'functional', 'gates'} <= own(names)
    assert 'mmengine' in outside(names)
