"""What importing the package imports, and what it registers."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'cv2', 'PIL', 'rich')


def run(code, *options):
    """Output of a process that runs some code, our package first.

    Without options it starts in no time, see warm_python.
    """
    lines = ['import sys', f'sys.path.insert(0, {str(ROOT)!r})', code]
    with TemporaryDirectory() as folder:
        script = Path(folder, 'script.py')
        script.write_text('\n'.join(lines))
        done = subprocess.run(
            [sys.executable, *options, str(script)],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_runtime_needs_numpy_only():
    output = run(
        'import numpy\n'
        'before = len(sys.modules)\n'
        'import fgc_mm.runtime.__main__\n'
        'print(len(sys.modules) - before, *sys.modules)',
        '-I',
    )
    count, *modules = output.split()
    assert 'fgc_mm.runtime.model' in modules
    assert not {*HEAVY, 'subprocess'} & {*modules}
    # it is imported in milliseconds: 36 small modules, argparse included
    assert int(count) <= 45


def test_the_installer_needs_nothing():
    output = run('import fgc_mm.runtime.building\nprint(*sys.modules)', '-IS')
    assert 'fgc_mm.runtime.building' in output.split()
    assert 'numpy' not in output.split()


def test_the_package_is_light_until_it_is_used():
    output = run(
        'import fgc_mm\nprint(fgc_mm.__version__, *sys.modules)', '-IS'
    )
    version, *modules = output.split()
    assert version[0].isdigit()
    assert not {*HEAVY, 'numpy', 'fgc_mm.models'} & {*modules}


@pytest.mark.parametrize(
    'code',
    [
        'import fgc_mm; fgc_mm.models',
        'from fgc_mm import losses',
        'import fgc_mm.registered',
        'import fgc_mm.registry',
        'from fgc_mm.models import GatedBackbone',
        'from fgc_mm.deploy import to_dynamic',
        'import fgc_mm.cli.run_tool',
        'import fgc_mm.engine.config_file',
        'import fgc_mm.reliability.checkpoint_reader',
        'import fgc_mm.evaluation',
        'import fgc_mm.datasets',
        'import fgc_mm.analysis',
        'import fgc_mm.comparison.runs',
    ],
)
def test_the_error_without_openmmlab(code, monkeypatch):
    """In a process where nothing can be imported."""
    for name in [n for n in sys.modules if n.partition('.')[0] == 'fgc_mm']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmengine', None)
    monkeypatch.delitem(sys.modules, 'mmengine')
    monkeypatch.setattr('importlib.metadata.version', missing)
    with pytest.raises(ImportError, match='fgc_mm needs torch') as caught:
        exec(code)
    assert isinstance(caught.value, ValueError)


def missing(name):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_unknown_names_raise_an_error():
    import fgc_mm

    assert {'models', 'FGCError'} <= {*dir(fgc_mm)}
    with pytest.raises(AttributeError, match='no attribute'):
        fgc_mm.no_such_name  # noqa: B018


LATER = """
from mmengine.registry import MODELS
for name in [n for n in sys.modules if n.partition('.')[0] == 'fgc_mm']:
    del sys.modules[name]
kept = sys.modules.pop('mmengine')
import fgc_mm
assert 'fgc_mm.models' not in sys.modules
sys.modules['mmengine'] = kept
"""


def test_components_are_found_when_they_are_looked_up():
    """Where the package was imported before MMEngine."""
    output = run(LATER + "print(MODELS.get('fgc_mm.CifarResNet').__name__)")
    assert output == 'CifarResNet'


def test_a_config_registers_all_components_at_once():
    """As ``custom_imports`` does it, before anything is looked up."""
    output = run(
        'import mmengine.utils\n'
        "mmengine.utils.import_modules_from_strings(['fgc_mm'])\n"
        "print('fgc_mm.models' in sys.modules, "
        "'fgc_mm.reliability.checkpoint_reader' in sys.modules)"
    )
    assert output == 'True True'
