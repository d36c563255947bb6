"""mmpretrain's own tools on our configs, with the package installed."""

import sys
from pathlib import Path

import mmpretrain

from .conftest import run

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
UPSTREAM = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
SHORT = (
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.indices=128',
    'val_dataloader.dataset.indices=32',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
    # so that the coupling acts at once
    'model.gate_losses.2.loss_weight.start_value=0.003',
    'custom_hooks.1.agreement_interval=1',
)


def test_upstreams_tools_train_resume_and_test_our_config(tmp_path):
    config = CONFIGS / 'fgc_resnet20_digits.py'
    options = ['--work-dir', tmp_path / 'work', '--cfg-options', *SHORT]
    train = [sys.executable, UPSTREAM / 'train.py', config, *options]
    done = run(train, tmp_path)
    assert done.returncode == 0, done.stdout
    for name in ('loss_cls', 'loss_shaping', 'loss_l0', 'loss_coupling'):
        assert f'{name}: ' in done.stdout
    assert 'agreement_layer3.2.conv1: ' in done.stdout
    assert 'macs/pruning_ratio: ' in done.stdout

    more = run([*train, 'train_cfg.max_epochs=3', '--resume'], tmp_path)
    assert more.returncode == 0, more.stdout
    assert 'Epoch(train) [3]' in more.stdout
    assert 'Epoch(train) [2]' not in more.stdout

    checkpoint = tmp_path / 'work' / 'epoch_3.pth'
    test = [sys.executable, UPSTREAM / 'test.py', config, checkpoint]
    tested = run([*test, '--work-dir', tmp_path / 'test'], tmp_path)
    assert tested.returncode == 0, tested.stdout
    assert 'always open' in tested.stdout
