"""Processes that hang; a stop by a signal; a resume by more or fewer ranks."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

HOOK = """
import os, signal, time
from pathlib import Path
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class HangHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3 and get_rank() == 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(300)

@HOOKS.register_module()
class NumberHook(Hook):
    def before_train(self, runner):
        path = Path(runner.work_dir, f'process{get_rank()}')
        path.write_text(str(os.getpid()))

    def after_train_iter(self, runner, *_, **__):
        # the signal arrives before the end of the second epoch
        if runner.epoch == 1 and get_world_size() > 1:
            time.sleep(1)
"""


@pytest.fixture
def start(real, tmp_path):
    """Starts two ranks of the digits config by tools/dist_train.sh."""
    started = []

    def dist_train(hook=None, **options):
        config = tmp_path / 'config.py'
        base = real.ROOT / 'configs' / 'fgc_resnet20_digits.py'
        text = f'_base_ = {str(base)!r}\n'
        if hook:
            (tmp_path / 'hooked.py').write_text(HOOK)
            text += (
                "custom_imports = dict(imports=['fgc_mm', 'hooked'])\n"
                f"custom_hooks = [*_base_.custom_hooks, dict(type='{hook}')]\n"
            )
        config.write_text(text)
        pairs = {**real.OPTIONS, **options}
        command = [
            real.ROOT / 'tools' / 'dist_train.sh', config, 2, '--work-dir',
            tmp_path / 'work', '--cfg-options',
            *(f'{key}={value}' for key, value in pairs.items()),
        ]  # fmt: skip
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            env=dict(
                os.environ,
                PYTHON=sys.executable,
                PYTHONPATH=str(tmp_path),
                CUDA_VISIBLE_DEVICES='-1',
                OMP_NUM_THREADS='1',
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield dist_train
    for process in started:
        process.kill()


def test_a_rank_that_hangs_is_named(real, start):
    process = start(hook='HangHook', **{'env_cfg.dist_cfg.timeout': 4})
    real.wait_for(process, 1, 3)
    begin = time.monotonic()
    text, code = real.end(process)
    assert code == 2, text
    (line,) = [x for x in text.splitlines() if x.startswith('error: ')]
    assert line.startswith('error: rank 1 has not joined a collective')
    assert 'Traceback' not in text
    # no process waits for the end of the sleep
    assert time.monotonic() - begin < 200


def test_torchrun_forwards_the_stop_signal(real, start, tmp_path):
    """By the signal that it would not survive on its own."""
    process = start()
    real.wait_for(process, 2, 2)
    process.send_signal(signal.SIGUSR1)
    text, code = real.end(process)
    assert code == 75 and 'Traceback' not in text, text
    assert 'Stopped by SIGUSR1: saving interrupted.pth' in text
    assert (tmp_path / 'work' / 'interrupted.pth').exists()


def test_one_rank_is_stopped_and_one_continues(real, start, tmp_path):
    """Both stop after the same step; resumed, there is one process less."""
    process = start(hook='NumberHook')
    real.wait_for(process, 2, 2)
    second = int((tmp_path / 'work' / 'process1').read_text())
    os.kill(second, signal.SIGTERM)
    text, code = real.end(process)
    assert code == 75 and 'Traceback' not in text, text
    assert 'Stopped by ' in text
    # 5 steps of 2 x 8 images are done as 10 steps of 8
    done = int(re.search(r'\(epoch 1, iter (\d+)\)', text)[1]) - 5
    assert 0 < done < 5
    text = real.run(tmp_path / 'work', '--resume')
    assert 'has the random states of 2 processes and this run has 1' in text
    steps = re.findall(r'Epoch\(train\) +\[2\]\[ *\d+/10\]', text)
    assert len(steps) == 10 - 2 * done
    assert (tmp_path / 'work' / 'epoch_4.pth').exists()
