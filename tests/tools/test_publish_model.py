"""tools/model_converters/publish_model.py on the checkpoint of a run."""

import hashlib
import re
import sys
from pathlib import Path

import pytest
import torch

from fgc_mm.cli.commands import publish_model
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from .conftest import TOOLS, error_lines, run

TOOL = TOOLS / 'model_converters' / 'publish_model.py'


def publish(project, *arguments):
    return run([sys.executable, TOOL, *arguments], project)


def test_publishes_the_weights_alone(project, trained, tmp_path):
    done = publish(project, trained.checkpoint, tmp_path / 'my net.pth')
    assert done.returncode == 0, done.stdout
    (file,) = tmp_path.iterdir()  # and nothing half written
    digest = re.fullmatch(r'my net-([0-9a-f]{8})\.pth', file.name)[1]
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:8] == digest
    assert Path(done.stdout.splitlines()[-1]) == file
    saved, before = read_checkpoint(file), read_checkpoint(trained.checkpoint)
    assert before.keys() >= {'optimizer', 'message_hub', 'param_schedulers'}
    assert saved.keys() == {'meta', 'state_dict'}
    assert saved['meta']['dataset_meta'] == before['meta']['dataset_meta']
    for key, value in before['state_dict'].items():
        assert torch.equal(saved['state_dict'][key], value)
    test = [sys.executable, TOOLS / 'test.py', 'tiny net.py', file]
    done = run([*test, '--work-dir', tmp_path / 'test'], project)
    assert done.returncode == 0 and 'accuracy/top1' in done.stdout


def test_errors_are_one_sentence(project, trained, tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(dict(a=torch.ones(1)), weights)
    (tmp_path / 'file').touch()
    for arguments, text in (
        (['none.pth', tmp_path / 'x'], 'none.pth is not a file'),
        ([weights, tmp_path / 'x'], 'has no state_dict'),
        ([trained.checkpoint, tmp_path / 'file' / 'x'], 'check the path'),
    ):
        done = publish(project, *arguments)
        (line,) = error_lines(done.stdout)
        assert done.returncode == 2 and text in line
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('target', ['.', '..', '/'])
def test_a_folder_has_no_file_name(target):
    with pytest.raises(FGCError, match='is a folder, but one file'):
        publish_model.publish(dict(state_dict={}), 'x.pth', target)
