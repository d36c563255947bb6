"""tools/train.py through the command line, on a CPU."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from fgc_mm.cli.run_tool import run_tool
from fgc_mm.errors import FGCError
from fgc_mm.missing_package import ENVIRONMENT
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from .conftest import TOOLS, error_lines, run

PAIR = '--cfg-options'


@pytest.fixture
def refused(tool, project, tmp_path):
    """Runs train.py to its error: one sentence, code 2, nothing written."""

    def call(config, *arguments, **kept):
        work_dir = tmp_path / 'work'
        before = set(project.iterdir())
        code, text = tool('train', config, '--work-dir', work_dir, *arguments)
        (line,) = error_lines(text)
        assert code == 2
        assert work_dir.exists() == kept.get('written', False)
        assert set(project.iterdir()) == before
        return line

    return call


def test_trains(trained):
    assert trained.code == 0, trained.text
    assert 'Epoch(val) [2][3/3]    accuracy/top1: ' in trained.text
    assert trained.checkpoint.is_file()
    # no GPU, so nothing to pin; no workers, so none to keep
    assert 'pin_memory = False' in trained.text.replace('=', ' = ')
    assert "'pin_memory' argument" not in trained.text


def test_upstreams_defaults(trained):
    cfg = Config.fromfile(trained.work_dir / 'tiny net.py')
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.persistent_workers is False  # num_workers=0
    assert cfg.val_dataloader.persistent_workers is True
    assert cfg.launcher == 'none'
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.pin_memory is torch.cuda.is_available()


@pytest.fixture
def copied(trained, tmp_path):
    """A work dir with the files of the run, to resume in."""
    folder = tmp_path / 'go on'
    folder.mkdir()
    shutil.copy(trained.checkpoint, folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def test_resumes_from_the_latest(project, copied):
    done = run(
        [sys.executable, TOOLS / 'train.py', 'tiny net.py', '--work-dir']
        + [copied, '--no-validate', PAIR, 'train_cfg.max_epochs=3']
        + ['--resume'],
        project,
    )
    assert done.returncode == 0, done.stdout
    assert 'resumed epoch: 2, iter: 8' in done.stdout
    assert 'Epoch(train) [3][1/4]' in done.stdout
    assert 'Epoch(train) [1]' not in done.stdout
    assert 'Epoch(val)' not in done.stdout
    assert (copied / 'epoch_3.pth').is_file()


def test_resumes_from_a_path(tool, trained, tmp_path):
    code, text = tool(
        'train', 'tiny net.py', '--work-dir', tmp_path, '--no-validate',
        '--resume', trained.checkpoint, PAIR, 'train_cfg.max_epochs=3',
    )  # fmt: skip
    assert code == 0, text
    state = torch.load(tmp_path / 'epoch_3.pth', weights_only=True)
    assert state['meta']['iter'] == 12


def test_arguments_reach_the_config(trained, tool, monkeypatch, tmp_path):
    seen = []
    runner = SimpleNamespace(train=print, log_dir=tmp_path)
    monkeypatch.setattr(
        'mmengine.runner.Runner.from_cfg',
        lambda cfg: seen.append(cfg) or runner,
    )
    code, _ = tool(
        'train', 'tiny net.py', '--no-validate',
        '--no-pin-memory', '--no-persistent-workers', PAIR,
        'train_dataloader.num_workers=2', 'model.head.topk=[1,2]',
        f'load_from={trained.checkpoint}',
    )  # fmt: skip
    assert code == 0
    (cfg,) = seen
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    assert cfg.model.head.topk == [1, 2]
    assert cfg.load_from == str(trained.checkpoint)  # with its space
    assert cfg.work_dir == 'work_dirs/tiny net'
    assert cfg.train_dataloader.num_workers == 2
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.test_dataloader.pin_memory is False


def test_auto_scale_lr(tool, project, monkeypatch, tmp_path):
    seen = []
    runner = SimpleNamespace(train=print, log_dir=tmp_path)
    monkeypatch.setattr(
        'mmengine.runner.Runner.from_cfg',
        lambda cfg: seen.append(cfg) or runner,
    )
    scaled = project / 'scaled.py'
    scaled.write_text(
        "_base_ = 'tiny net.py'\nauto_scale_lr = dict(base_batch_size=8)\n"
    )
    assert tool('train', scaled, '--auto-scale-lr')[0] == 0
    assert seen[0].auto_scale_lr == dict(base_batch_size=8, enable=True)
    scaled.unlink()


def test_bad_config(refused, tmp_path):
    assert 'none.py is not a file' in refused('none.py')
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    assert 'cannot be read as a config' in refused(broken)
    other = tmp_path / 'config.txt'
    other.touch()
    assert 'py/yml/yaml/json' in refused(other)
    missing = tmp_path / 'child.py'
    missing.write_text("_base_ = 'no_parent.py'\n")
    assert 'no_parent.py' in refused(missing)


def test_bad_options(refused):
    name = 'tiny net.py'
    assert "'lr' is not a pair" in refused(name, PAIR, 'lr')
    assert "'=3' is not a pair" in refused(name, PAIR, 'a=1', '=3')
    assert 'brackets' in refused(name, PAIR, 'a=[1,(2]')
    assert 'does not fit' in refused(name, PAIR, 'model.type.x=1')
    text = refused(name, PAIR, 'model.backbone.strides.7.x=1')
    assert 'does not fit' in text
    assert 'no auto_scale_lr' in refused(name, '--auto-scale-lr')


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs no GPU')
@pytest.mark.parametrize('how', ['argument', 'config'])
def test_amp_without_gpu(tool, tmp_path, how):
    kind = 'optim_wrapper.type=AmpOptimWrapper'
    amp = ['--amp', PAIR] if how == 'argument' else [PAIR, kind]
    code, text = tool(
        'train', 'tiny net.py', '--work-dir', tmp_path, '--no-validate',
        *amp, 'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert code == 0, text
    (state,) = map(read_checkpoint, tmp_path.glob('*.pth'))
    values = state['state_dict'].values()
    assert all(x.dtype == torch.float32 for x in values if x.ndim)
    assert "type='fgc_mm.BFloat16OptimWrapper'" in state['meta']['cfg']


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs no GPU')
def test_float16_without_gpu(refused):
    half = 'optim_wrapper.dtype=float16'
    text = refused('tiny net.py', '--amp', PAIR, half)
    assert 'mixed precision in float16' in text


def test_bad_checkpoints(refused, trained, tmp_path):
    name, cut = 'tiny net.py', tmp_path / 'cut.pth'
    cut.write_bytes(trained.checkpoint.read_bytes()[:3000])
    for arguments in (['--resume', cut], [PAIR, f'load_from={cut}']):
        assert f'{cut} cannot be read' in refused(name, *arguments)
    assert 'none.pth is not a file' in refused(name, '--resume', 'none.pth')
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1))), weights)
    assert 'no message_hub' in refused(name, '--resume', weights)


def test_bad_latest_checkpoint(tool, copied):
    (copied / 'epoch_2.pth').write_bytes(b'')
    before = sorted(copied.iterdir())
    code, text = tool('train', 'tiny net.py', '--work-dir', copied, '--resume')
    (line,) = error_lines(text)
    assert code == 2 and 'is empty (0 bytes)' in line
    assert sorted(copied.iterdir()) == before


def test_hostile_checkpoint(refused, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'made'),)

    path = tmp_path / 'hostile.pth'
    content = dict.fromkeys(('meta', 'message_hub'), Payload())
    torch.save(dict(state_dict=dict(a=torch.ones(1)), **content), path)
    assert 'refers to code' in refused('tiny net.py', '--resume', path)
    assert not (tmp_path / 'made').exists()


def test_missing_data(refused):
    root = 'train_dataloader.dataset.data_root=/no/such/folder'
    # the Runner has made its work dir by the time it meets the data
    text = refused('tiny net.py', PAIR, root, written=True)
    assert text.startswith('error: /no/such/folder')


def test_unknown_type(refused):
    kind = 'train_dataloader.dataset.type=Nothing'
    text = refused('tiny net.py', PAIR, kind, written=True)
    assert text.startswith('error: Nothing is not in the mmpretrain::dataset')


def test_launcher_without_its_environment(refused, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')):
        text = refused('tiny net.py', '--launcher', launcher)
        assert f'finds no {name} in the environment' in text


class Failing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise FGCError(f'{index} is too many:\nthere is none; add one.')


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_in_a_worker_is_one_line(capfd, workers):
    def main():
        next(iter(DataLoader(Failing(), num_workers=workers)))

    assert run_tool(main) == 2
    (line,) = error_lines(capfd.readouterr().err)
    assert 'there is none; add one.' in line


def test_a_bug_keeps_its_traceback(monkeypatch):
    def bug():
        raise ValueError('not the user')

    def bad_input():
        raise FGCError('the user')

    with pytest.raises(ValueError, match='not the user'):
        run_tool(bug)
    monkeypatch.setenv('FGC_TRACEBACK', '1')
    with pytest.raises(FGCError):
        run_tool(bad_input)


def test_an_error_of_a_custom_import_is_printed(tool, tmp_path, monkeypatch):
    (tmp_path / 'broken_plugin.py').write_text(
        'from fgc_mm._stack import StackError\n'
        "raise StackError('mmcv is not installed: run `pip`.')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['broken_plugin'])\n")
    code, text = tool('train', config)
    assert code == 2
    assert error_lines(text) == ['error: mmcv is not installed: run `pip`.']


def test_ctrl_c_is_one_line(project, tmp_path):
    command = [sys.executable, '-u', TOOLS / 'train.py', 'tiny net.py']
    command += ['--work-dir', tmp_path, PAIR, 'train_cfg.max_epochs=9999']
    command += ['param_scheduler.total_steps=99999']
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job, as this test may be, ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stdout:
            if re.search(r'Epoch\(train\) +\[2\]', line):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert 'Traceback' not in errors
    assert len(re.findall('^interrupted$', errors, re.MULTILINE)) == 1


def test_a_clone_uses_its_own_package(tmp_path):
    clone = tmp_path / 'a clone'
    for name in ('tools', 'fgc_mm'):
        shutil.copytree(TOOLS.parent / name, clone / name)
    with (clone / 'fgc_mm' / 'errors.py').open('a') as file:
        file.write("print('the package of the clone')\n")
    command = [sys.executable, clone / 'tools' / 'train.py', 'none.py']
    done = run(command, tmp_path)
    assert done.returncode == 2
    assert 'the package of the clone' in done.stdout


def test_a_broken_stack_is_one_line(tmp_path):
    config = 'fgc_resnet20_digits'
    for name, arguments in (('train', [config]), ('test', [config, 'b.pth'])):
        script = TOOLS / f'{name}.py'
        # -S: a Python without any package
        done = run([sys.executable, '-S', script, *arguments], tmp_path)
        assert done.returncode != 0
        (line,) = error_lines(done.stdout)
        # beside the environment of `make` another Python gets its name
        own = Path(sys.prefix).resolve() == ENVIRONMENT.resolve()
        if own or not ENVIRONMENT.is_dir():
            assert '`pip install torch torchvision`' in line
        else:
            assert f'`source {ENVIRONMENT}/bin/activate`' in line


def test_a_misspelt_argument_is_one_sentence(refused):
    line = refused('tiny net.py', PAIR, 'model.head.topkk=3', written=True)
    assert "unexpected keyword argument 'topkk'" in line


def test_resume_without_a_checkpoint_starts_as_the_config_says(
    tool, trained, tmp_path
):
    """Jobs that may be repeated always pass --resume."""
    code, text = tool(
        'train', 'tiny net.py', '--work-dir', tmp_path / 'a, b', '--resume',
        '--no-validate', PAIR, f'load_from={trained.checkpoint}',
        'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert code == 0, text
    (log,) = (tmp_path / 'a, b').glob('*/*.log')
    assert f'Load checkpoint from {trained.checkpoint}' in log.read_text()


def test_a_refused_run_leaves_the_config(tool, tmp_path):
    folder = tmp_path / 'work'
    folder.mkdir()
    (folder / 'tiny net.py').write_text('# of the other run')
    script = (
        'import sys, time; from fgc_mm.reliability.work_dir_lock import '
        'WorkDirLock; lock = WorkDirLock(); lock.acquire(sys.argv[1]); '
        "print('locked', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, '-c', script, folder], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b'locked\n'
        code, text = tool('train', 'tiny net.py', '--work-dir', folder)
    finally:
        other.kill()
    assert code == 2 and 'is in use by process' in text
    assert (folder / 'tiny net.py').read_text() == '# of the other run'


@pytest.mark.parametrize('seed', [-1, 2**32, 0.5])
def test_a_seed_that_is_none(refused, seed):
    text = refused('tiny net.py', PAIR, f'randomness.seed={seed}')
    assert f'randomness.seed={seed} is not a seed' in text


def test_resume_looks_in_the_work_dir_of_the_options(tool, copied):
    code, text = tool(
        'train', 'tiny net.py', '--resume', '--no-validate', PAIR,
        f'work_dir={copied}', 'train_cfg.max_epochs=3',
    )  # fmt: skip
    assert code == 0, text
    logs = [file.read_text() for file in copied.glob('*/*.log')]
    assert any('resumed epoch: 2' in log for log in logs)
