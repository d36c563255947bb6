"""Each way an OpenMMLab installation is broken gets its one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'fgc_mm'
TORCH = {'torch': '2.11.0', 'torchvision': '0.26.0'}
ORIGINALS = {'mmengine': '0.10.7', 'mmcv-lite': '2.2.0', 'mmpretrain': '1.2.0'}
FORKS = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
}
INSTALL_ORIGINALS = (
    'pip install mmengine==0.10.7 mmcv-lite==2.2.0 mmpretrain==1.2.0'
)
INSTALL_FORKS = (
    'pip install onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 '
    'onedl-mmpretrain==1.3.6'
)
TORCH_PIN = 'Requires-Dist: torch==2.11.0\n'
PROBE = """
import sys
sys.path.append(sys.argv[1])
try:
    import fgc_mm
except ImportError as error:
    print(f'{isinstance(error, ValueError)} {error}')
assert 'torch' not in sys.modules and 'mmengine' not in sys.modules
"""


def make_site(folder, distributions, modules=None, pin=TORCH_PIN):
    """A site-packages with these (empty) distributions, and our check."""
    copy = folder / 'fgc_mm'
    copy.mkdir()
    for name in ('_stack.py', 'errors.py', 'missing_package.py'):
        shutil.copy(PACKAGE / name, copy)
    (copy / '__init__.py').write_text(
        'from ._stack import check_stack\ncheck_stack()\n'
    )
    for name, version in distributions.items():
        info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            + (pin if name == 'torchvision' else '')
        )
    if modules is None:
        names = ('mmengine', 'mmcv', 'mmpretrain')
        modules = [
            n for n in names if any(n in found for found in distributions)
        ]
    for module in modules:
        (folder / module).mkdir(exist_ok=True)
        (folder / module / '__init__.py').touch()
    return folder


def check(site):
    """Output of `import fgc_mm` in that environment; empty without errors."""
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', PROBE, str(site)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sentence(site):
    """The error, which is an ImportError, an FGCError and one sentence."""
    found = check(site)
    assert found.startswith('True ')
    text = found.removeprefix('True ')
    assert '\n' not in text and text.endswith('`.')
    return text


@pytest.mark.parametrize('stack', [ORIGINALS, FORKS])
def test_whole_stack_passes(tmp_path, stack):
    assert check(make_site(tmp_path, {**TORCH, **stack})) == ''


def test_full_mmcv_passes(tmp_path):
    stack = {**TORCH, **ORIGINALS, 'mmcv': '2.1.0'}
    del stack['mmcv-lite']
    assert check(make_site(tmp_path, stack)) == ''


def test_nothing_installed(tmp_path):
    text = sentence(make_site(tmp_path, TORCH))
    assert 'mmengine and mmcv and mmpretrain are not installed' in text
    assert f'`{INSTALL_ORIGINALS}`' in text


@pytest.mark.parametrize('name', ORIGINALS)
def test_one_is_missing(tmp_path, name):
    stack = {**TORCH, **ORIGINALS}
    del stack[name]
    text = sentence(make_site(tmp_path, stack))
    assert f'{name.removesuffix("-lite")} is not installed' in text
    assert f'`{INSTALL_ORIGINALS}`' in text


@pytest.mark.parametrize('name', FORKS)
def test_one_fork_is_missing(tmp_path, name):
    stack = {**TORCH, **FORKS}
    del stack[name]
    text = sentence(make_site(tmp_path, stack))
    assert f'{name.removeprefix("onedl-")} is not installed' in text
    assert f'`{INSTALL_FORKS}`' in text


def test_both_families(tmp_path):
    stack = {**TORCH, **ORIGINALS, **FORKS}
    text = sentence(make_site(tmp_path, stack))
    uninstall = f'pip uninstall -y {" ".join([*ORIGINALS, *FORKS])}'
    assert f'`{uninstall}`' in text and f'`{INSTALL_FORKS}`' in text


def test_one_fork_among_the_originals(tmp_path):
    stack = {**TORCH, **ORIGINALS, 'onedl-mmcv': '2.3.6'}
    text = sentence(make_site(tmp_path, stack))
    assert 'installed together' in text and 'onedl-mmcv' in text


def test_mmcv_beside_mmcv_lite(tmp_path):
    stack = {**TORCH, **ORIGINALS, 'mmcv': '2.2.0'}
    text = sentence(make_site(tmp_path, stack))
    assert 'installed together' in text and f'`{INSTALL_ORIGINALS}`' in text


def test_files_are_gone(tmp_path):
    # what `pip uninstall onedl-mmengine` leaves of the originals
    site = make_site(tmp_path, {**TORCH, **ORIGINALS}, ['mmcv', 'mmpretrain'])
    (site / 'mmengine' / '__pycache__').mkdir(parents=True)
    text = sentence(site)
    assert 'mmengine is damaged' in text
    assert '`pip install --force-reinstall mmengine==0.10.7' in text


@pytest.mark.parametrize(
    'name, version',
    [
        ('mmengine', '0.9.1'),
        ('mmengine', '1.0.0'),
        ('mmcv-lite', '1.7.2'),
        ('mmcv-lite', '2.4.0'),
        ('mmpretrain', '1.1.1'),
        ('mmpretrain', '2.0.0'),
    ],
)
def test_wrong_version(tmp_path, name, version):
    stack = {**TORCH, **ORIGINALS, name: version}
    text = sentence(make_site(tmp_path, stack))
    assert text.startswith(f'{name} {version} is installed')
    assert '>=' in text and f'`{INSTALL_ORIGINALS}`' in text


def test_source_checkout_without_metadata_passes(tmp_path):
    modules = ['mmengine', 'mmcv', 'mmpretrain']
    assert check(make_site(tmp_path, TORCH, modules)) == ''


@pytest.mark.parametrize('name', TORCH)
def test_torch_is_missing(tmp_path, name):
    stack = {**TORCH, **ORIGINALS}
    del stack[name]
    text = sentence(make_site(tmp_path, stack))
    assert f'and {name} cannot be found' in text


@pytest.mark.parametrize(
    'torch, vision',
    [
        ('2.12.0', '0.26.0'),  # another torch than torchvision was built for
        ('2.11.0+cpu', '0.26.0'),  # builds of two indexes
        ('2.11.0', '0.26.0+cpu'),
    ],
)
def test_torchvision_of_another_torch(tmp_path, torch, vision):
    stack = {'torch': torch, 'torchvision': vision, **ORIGINALS}
    text = sentence(make_site(tmp_path, stack))
    assert f'torchvision {vision} does not fit torch {torch}' in text


@pytest.mark.parametrize(
    'torch, vision, pin',
    [
        ('2.11.0+cpu', '0.26.0+cpu', TORCH_PIN),
        ('2.11.0+cu130', '0.26.0+cu130', 'Requires-Dist: torch (==2.11.0)\n'),
        ('2.9.0a0+gitabc', '0.24.0a0+def', 'Requires-Dist: torch\n'),
    ],
)
def test_torchvision_of_the_same_torch(tmp_path, torch, vision, pin):
    stack = {'torch': torch, 'torchvision': vision, **ORIGINALS}
    assert check(make_site(tmp_path, stack, pin=pin)) == ''


def test_this_installation_passes():
    from fgc_mm._stack import check_stack

    check_stack()
