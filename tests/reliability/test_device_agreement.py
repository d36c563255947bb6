"""Processes of which only some have a visible GPU."""

import json
import os
import socket

import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli import launch


@pytest.fixture
def said(run_ranks, tmp_path):
    """The error of every rank, given the device of each."""

    def ask(gpus, seconds=60, missing=0):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        plan = dict(gpus=gpus, port=port, seconds=seconds, missing=missing)
        (tmp_path / 'plan.json').write_text(json.dumps(plan))
        return run_ranks('device_ranks.py', len(gpus), tmp_path)

    return ask


@pytest.mark.parametrize('seen', [True, False])
def test_all_or_none_is_right(said, seen):
    assert said([seen] * 2) == ['', '']


def test_ranks_without_a_gpu_are_named_by_all(said):
    answers = said([True, False, False])
    host = socket.gethostname()
    for answer in answers:
        assert answer.startswith(
            f'no GPU is visible to ranks 1 and 2 (on {host}), but the other'
        )


def test_one_that_does_not_start_is_one_sentence(said):
    (answer,) = said([True], seconds=1, missing=1)
    assert answer.startswith('not all of the 2 processes have started')


def test_nccl_reports_the_ranks_that_did_not_join(monkeypatch):
    names = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='n1')
    for name, value in dict(names, MASTER_PORT='1').items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(launch, 'check_devices', lambda seconds: None)
    for given, kept in ((None, '1'), ('0', '0')):
        monkeypatch.delenv('TORCH_NCCL_DESYNC_DEBUG', raising=False)
        if given is not None:
            monkeypatch.setenv('TORCH_NCCL_DESYNC_DEBUG', given)
        launch.join_processes(Config(), 'pytorch')
        assert os.environ['TORCH_NCCL_DESYNC_DEBUG'] == kept
