"""For every folder: tiny gated classifiers, and processes that start soon."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

import fgc_mm.models
from fgc_mm.registry import MODELS

ENGINE = Path(__file__).parent / 'engine'
sys.path.append(str(Path(__file__).parent))
from warm_python.start import warm_python  # noqa: E402


@pytest.fixture(autouse=True, scope='session')
def python():
    """``sys.executable`` starts in milliseconds; see warm_python.

    Not where there is a GPU, which a forked process could not use.
    """
    if torch.cuda.is_available():
        yield sys.executable
        return
    with warm_python() as path:
        yield path


@pytest.fixture(autouse=True, scope='session')
def unformatted():
    """Configs are dumped as they are.

    mmengine lets yapf lay out the config's text for every checkpoint, which
    is most of the time of a tiny run.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'mmengine.config.config.FormatCode',
            lambda text, **_: (text, True),
        )
        yield


@pytest.fixture(autouse=True, scope='module')
def scope():
    """Names mean what they mean in a config, whatever has run before."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
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
    return [
        DataSample(metainfo=dict(sample_idx=first + i)).set_gt_label(label)
        for i, label in enumerate(labels)
    ]


@pytest.fixture(scope='session')
def tiny():
    """Makes gated classifiers and their inputs."""
    assert fgc_mm.models

    def build(seed=0, **options):
        torch.manual_seed(seed)
        return MODELS.build(gated_cfg(**options))

    return SimpleNamespace(build=build, cfg=gated_cfg, samples=samples)


@pytest.fixture(autouse=True)
def own_scope():
    """No test leaves its Runner's default scope to the next one."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def _run_ranks(script, world, folder):
    """What the gloo processes of a script in tests/engine brought home."""
    paths = [str(ENGINE.parents[1]), str(ENGINE)]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    env.update(OMP_NUM_THREADS='1', LOCAL_RANK='0')
    script = str(ENGINE / script)
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
    said = [child.communicate(timeout=600)[0] for child in children]
    assert [child.returncode for child in children] == [0] * world, said
    return [torch.load(folder / f'{rank}.pt') for rank in range(world)]


@pytest.fixture(scope='session')
def run_ranks():
    """Runs a script of tests/engine as so many processes."""
    return _run_ranks


@pytest.fixture(scope='session')
def two_ranks(tmp_path_factory):
    """What two gloo processes brought home; see two_ranks.py."""
    return _run_ranks('two_ranks.py', 2, tmp_path_factory.mktemp('two_ranks'))


@pytest.fixture(scope='session', params=[2, 3])
def coupled_ranks(request, tmp_path_factory):
    """What two, and then three, processes say; see coupled_ranks.py."""
    folder = tmp_path_factory.mktemp('coupled_ranks')
    return _run_ranks('coupled_ranks.py', request.param, folder)
