"""mmpretrain's tools for analysis and pictures, on gated configs.

Which of them run, and why the others do not, is in docs/tools.md.
"""

import runpy
import sys
from pathlib import Path

import cv2
import matplotlib
import mmpretrain
import numpy as np
import pytest
import sklearn.manifold
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import digit_version
from mmengine.visualization import Visualizer
from sklearn.manifold import TSNE

from fgc_mm import config_file
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.config_file import load_config

from . import tiny_cam

UPSTREAM = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
FOLDER = config_file('fgc_resnet20_folder')
DIGITS = config_file('fgc_resnet20_digits')
SINGLE_PROCESS = [
    f'{split}_dataloader.{name}'
    for split in ('train', 'val')
    for name in ('num_workers=0', 'persistent_workers=False')
]
# a config for each hook that looks at the model before the training
SCHEDULES = (
    'fgc_resnet20_digits',
    'ftwt_resnet20_folder',
    'sfp_resnet20_digits',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Ten classes of images in data/folder, and the current folder's tools."""
    folder = tmp_path_factory.mktemp('upstream')
    draw = np.random.default_rng(0)
    for split in ('train', 'test'):
        for label in range(10):
            images = folder / 'data' / 'folder' / split / f'class{label}'
            images.mkdir(parents=True)
            for number in range(2):
                pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
                cv2.imwrite(str(images / f'{label}_{number}.png'), pixels)
    return folder


@pytest.fixture(scope='module')
def checkpoint(folder):
    """Random weights of the classifier that both configs have."""
    torch.manual_seed(0)
    model = build_model(load_config(DIGITS))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'x.pth')
    return folder / 'x.pth'


@pytest.fixture
def upstream(folder, monkeypatch, capsys):
    """Runs a tool of mmpretrain in this process; what it prints."""

    def call(name, *arguments):
        for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
        path = UPSTREAM / name
        # beside the script, as when Python runs it
        monkeypatch.setattr(sys, 'path', [str(path.parent), *sys.path])
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        monkeypatch.chdir(folder)
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    ('config', 'size', 'flops'), [(DIGITS, 8, '2.5'), (FOLDER, 32, '40.')]
)
def test_flops_are_the_dense_networks(upstream, config, size, flops):
    output = upstream('analysis_tools/get_flops.py', config, '--shape', size)
    assert f'Flops: {flops}' in output
    assert 'backbone.gates' in output


def test_the_config_is_printed(upstream):
    assert 'fgc_mm.GatedBackbone' in upstream('misc/print_config.py', DIGITS)


@pytest.mark.parametrize('name', SCHEDULES)
def test_learning_rates_are_plotted(upstream, name, tmp_path):
    config, file = config_file(name), tmp_path / 'rates.png'
    upstream(
        'visualization/vis_scheduler.py', config, '--not-show', '-d', 256,
        '-s', file, '--cfg-options', 'train_cfg.max_epochs=2',
    )  # fmt: skip
    assert file.is_file()


def test_the_default_layer_of_the_activation_map_is_the_networks(
    upstream, checkpoint, folder, tmp_path, monkeypatch
):
    tiny_cam.install(monkeypatch)
    image = folder / 'data' / 'folder' / 'test' / 'class0' / '0_0.png'
    output = upstream(
        'visualization/vis_cam.py', image, FOLDER, checkpoint,
        '--save-path', tmp_path / 'cam.png',
    )  # fmt: skip
    assert '"backbone.backbone.layer3.2.bn2" as the target layer' in output
    assert (tmp_path / 'cam.png').is_file()


def test_features_are_embedded(upstream, checkpoint, tmp_path, monkeypatch):
    def embedding(n_iter=250, **options):
        """Takes the name that scikit-learn 1.7 has replaced.

        The forks give the new one.
        """
        return TSNE(**{'max_iter': n_iter, **options})

    monkeypatch.setattr(sklearn.manifold, 'TSNE', embedding)
    upstream(
        'visualization/vis_tsne.py', DIGITS, '--checkpoint', checkpoint,
        '--work-dir', tmp_path, '--device', 'cpu', '--max-num-samples', 2,
        '--perplexity', 5, '--n-iter', 250,
    )  # fmt: skip
    names = {path.name for path in tmp_path.rglob('*') if path.is_file()}
    assert {'feat_2.npy', 'feat_2.png'} <= names


@pytest.mark.skipif(
    digit_version(matplotlib.__version__) >= digit_version('3.11'),
    reason='browse_dataset.py calls what matplotlib 3.11 has changed',
)
@pytest.mark.parametrize('config', [DIGITS, FOLDER])
def test_images_are_browsed(upstream, config, tmp_path):
    upstream(
        'visualization/browse_dataset.py', config, '--not-show', '-n', 1,
        '-o', tmp_path, '-m', 'pipeline',
    )  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 1


def test_predictions_are_small_and_are_analysed(
    upstream, checkpoint, tmp_path
):
    file, matrix = tmp_path / 'predictions.pkl', tmp_path / 'matrix.pkl'
    short = '--cfg-options', 'test_dataloader.dataset.indices=120'
    work_dir = '--work-dir', tmp_path / 'test'
    upstream('test.py', DIGITS, checkpoint, '--out', file, *work_dir, *short)
    # a gate has a byte per channel and image, not one per image of the batch
    assert file.stat().st_size < 120 * 2500
    metric = '--metric', 'type=Accuracy', 'topk=1,5'
    found = upstream('analysis_tools/eval_metric.py', file, *metric)
    assert 'accuracy/top5' in found
    tool = 'analysis_tools/confusion_matrix.py'
    upstream(tool, DIGITS, file, '--out', matrix)
    picture = '--show-path', tmp_path / 'matrix.png'
    upstream(tool, DIGITS, checkpoint, *picture, *short)
    assert matrix.is_file() and picture[1].is_file()
    out = '--out-dir', tmp_path / 'best', '--topk', 1
    upstream('analysis_tools/analyze_results.py', DIGITS, file, *out)
    assert (out[1] / 'fail' / 'fail.json').is_file()


def test_images_are_verified_with_upstreams_loader(upstream, tmp_path):
    loader = 'test_dataloader.dataset.pipeline.0.type=LoadImageFromFile'
    output = upstream(
        'misc/verify_dataset.py', FOLDER, '--out-path', tmp_path / 'broken',
        '--phase', 'test', '--num-process', 1, '--cfg-options', loader,
    )  # fmt: skip
    assert 'no broken file' in output


def test_folds_are_trained_and_their_logs_analysed(upstream, tmp_path):
    """Without the coupling, whose banks need a plain data set."""
    upstream(
        'kfold-cross-valid.py', config_file('bas_resnet20_folder'),
        '--num-splits', 2, '--fold', 0, '--work-dir', tmp_path,
        '--cfg-options', 'train_cfg.max_epochs=1', *SINGLE_PROCESS,
        'train_dataloader.batch_size=5', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    (log,) = tmp_path.rglob('vis_data/2*.json')
    tool, curve = 'analysis_tools/analyze_logs.py', tmp_path / 'curve.png'
    assert 'average iter time' in upstream(tool, 'cal_train_time', log)
    upstream(tool, 'plot_curve', log, '--keys', 'loss', '--out', curve)
    assert curve.is_file()


def test_a_checkpoint_is_published(upstream, checkpoint, tmp_path):
    upstream(
        'model_converters/publish_model.py', checkpoint, tmp_path / 'a.pth'
    )
    assert len(list(tmp_path.glob('a_*.pth'))) == 1
