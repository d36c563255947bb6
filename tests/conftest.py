"""For every folder: tiny gated classifiers, and processes that start soon.

Nothing large is imported outside the functions: the process that hands the
test files out to others runs no test.
"""

import fcntl
import gc
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgc_mm.yapf_import import import_yapf

RUNS = Path(__file__).parent / 'runs'
# The files that take longest begin first, so that no process is left alone
# with one of them at the end.
LONGEST = (
    'tools/test_compare.py',
    'configs/test_configs.py',
    'deploy/test_dynamic.py',
    'tools/test_benchmark.py',
    'models/test_zoo_property.py',
    'reliability/test_exact_resume_hook.py',
    'tools/test_export_tools.py',
    'reliability/test_ranks_that_stop.py',
    'sites/test_discovery.py',
    'engine/test_coupled_ranks.py',
    'tools/test_reproduce_page.py',
    'engine/test_odd_ground.py',
    'engine/test_memory_bank_hook.py',
    'tools/test_prune_static.py',
    'deploy/test_compact.py',
    'reliability/test_checkpoint_hook.py',
    'reliability/test_resume_of_loops.py',
    'deploy/test_exporting.py',
    'tools/test_launchers.py',
    'models/test_gated_backbone.py',
)
sys.path.append(str(Path(__file__).parent))
from warm_python.start import warm_python  # noqa: E402

# before any file imports mmengine: all test processes start at the same time
import_yapf()


def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    ranks = {
        str(Path(__file__).parent / name): rank
        for rank, name in enumerate(LONGEST)
    }
    items.sort(key=lambda item: ranks.get(str(item.path), len(LONGEST)))


@pytest.fixture(scope='session', autouse=True)
def _freed_memory_is_kept():
    """As in a training on a CPU."""
    from fgc_mm.cli.freed_memory import keep_freed_memory

    keep_freed_memory()


@pytest.fixture(scope='session')
def shared_root(tmp_path_factory):
    """A folder of all processes of the test run."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if 'PYTEST_XDIST_WORKER' in os.environ else root


@pytest.fixture(autouse=True, scope='session')
def python(shared_root):
    """``sys.executable`` starts in milliseconds; see warm_python.

    Not where there is a GPU, which a forked process could not use.
    """
    import torch

    if torch.cuda.is_available():
        yield sys.executable
        return
    one_of_several = 'PYTEST_XDIST_WORKER' in os.environ
    with warm_python(shared_root / 'warm' if one_of_several else None) as path:
        yield path


@pytest.fixture(autouse=True, scope='session')
def unformatted():
    """Configs are dumped as they are.

    mmengine lets yapf lay out the config's text for every checkpoint, which
    is most of the time of a tiny run.
    """
    with pytest.MonkeyPatch.context() as patch:
        # the fork imports it when it is called
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(
                importlib.import_module(module),
                'FormatCode',
                lambda text, **_: (text, True),
                raising=False,
            )
        yield


@pytest.fixture(autouse=True, scope='module')
def shared_searches(request, shared_root):
    """A network whose sites one test process has found is not searched again.

    The processes share a store, as the ranks of a distributed run do. Tests
    of the search itself search.
    """
    alone = 'PYTEST_XDIST_WORKER' not in os.environ
    if alone or request.path.parent.name == 'sites':
        yield
        return
    from torch.distributed import FileStore

    store = FileStore(str(shared_root / 'sites_store'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('fgc_mm.sites.site_cache._store', lambda: store)
        yield


@pytest.fixture(autouse=True, scope='session')
def registered():
    """Every test can build what the package registers.

    What is imported stays: the garbage collector, which mmengine calls for
    every data set, need not look at it each time.
    """
    import fgc_mm.registered

    assert fgc_mm.registered
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _in_mmpretrain():
    from mmengine.registry import DefaultScope

    return DefaultScope.overwrite_default_scope('mmpretrain')


@pytest.fixture(autouse=True, scope='module')
def scope():
    """Names and loggers are as in a new process, whatever has run before."""
    from mmengine.logging import MMLogger

    MMLogger._instance_dict.clear()  # some have another level, by their rank
    logging.disable(logging.NOTSET)  # as benchmarks do
    with _in_mmpretrain():
        yield


def gated_cfg(backbone=None, gate_losses=(), channels=16, sites='auto'):
    """Config of a gated classifier of 10 classes."""
    if backbone is None:
        backbone = dict(type='fgc_mm.CifarResNet', base_channels=4)
    return dict(
        type='fgc_mm.GatedImageClassifier',
        backbone=dict(
            type='fgc_mm.GatedBackbone',
            backbone=backbone,
            gate=dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
            sites=sites,
        ),
        gate_losses=gate_losses,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=channels,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def samples(labels, first=0):
    """One DataSample per label, with its place in the training set."""
    from mmpretrain.structures import DataSample

    return [
        DataSample(metainfo=dict(sample_idx=first + i)).set_gt_label(label)
        for i, label in enumerate(labels)
    ]


@pytest.fixture(scope='session')
def tiny():
    """Makes gated classifiers and their inputs."""
    import torch

    from fgc_mm.registry import MODELS

    def build(seed=0, **options):
        torch.manual_seed(seed)
        return MODELS.build(gated_cfg(**options))

    return SimpleNamespace(build=build, cfg=gated_cfg, samples=samples)


@pytest.fixture(scope='session')
def compiled():
    """Compiles the runtime, once; skips the test if there is no compiler."""
    from fgc_mm.runtime.compiler import compiler
    from fgc_mm.runtime.errors import LibraryError
    from fgc_mm.runtime.library import load_library

    try:
        load_library()
    except LibraryError as error:
        if shutil.which(compiler()[0]):  # the sources are wrong
            raise
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def own_scope():
    """No test leaves its Runner's default scope to the next one."""
    with _in_mmpretrain():
        yield


@pytest.fixture(scope='session')
def made_once(shared_root):
    """Folders that one process of the test run fills for all of them."""

    def make(name, fill):
        folder = shared_root / name
        whole = shared_root / f'{name}.whole'
        with (shared_root / f'{name}.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return make


def _module_of_runs(name):
    spec = importlib.util.spec_from_file_location(name, RUNS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def digits():
    """The module that makes tiny runs; a worker process imports it too."""
    return _module_of_runs('digits_run')


@pytest.fixture(scope='session')
def real():
    """The module that starts training in processes of their own."""
    return _module_of_runs('real_train')


@pytest.fixture(scope='session')
def uninterrupted(real, made_once):
    """The folder of an uninterrupted run."""
    return made_once('uninterrupted', real.run)


def _start_ranks(script, world, folder):
    """Runs a script in tests/runs as so many gloo processes."""
    paths = [str(RUNS.parents[1]), str(RUNS)]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    env.update(OMP_NUM_THREADS='1', LOCAL_RANK='0')
    script = str(RUNS / script)
    children = [
        subprocess.Popen(
            [sys.executable, script, str(folder), str(rank), str(world)],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [child.communicate(timeout=600)[0] for child in children]
    assert [child.returncode for child in children] == [0] * world, outputs


def _brought(world, folder):
    import torch

    return [torch.load(folder / f'{rank}.pt') for rank in range(world)]


@pytest.fixture(scope='session')
def run_ranks():
    """Runs a script of tests/runs as so many processes."""

    def run(script, world, folder):
        _start_ranks(script, world, folder)
        return _brought(world, folder)

    return run


@pytest.fixture(scope='session')
def two_ranks(made_once):
    """Results of two gloo processes; see two_ranks.py."""
    folder = made_once(
        'two_ranks', lambda folder: _start_ranks('two_ranks.py', 2, folder)
    )
    return _brought(2, folder)


@pytest.fixture(scope='session', params=[2, 3])
def coupled_ranks(request, run_ranks, tmp_path_factory):
    """Results of two, and then three, ranks; see coupled_ranks.py."""
    folder = tmp_path_factory.mktemp('coupled_ranks')
    return run_ranks('coupled_ranks.py', request.param, folder)
