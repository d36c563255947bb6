"""Checkpoints are complete, whatever happens while they are written."""

import multiprocessing
import os
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import IterBasedTrainLoop

from fgc_mm.errors import FGCError
from fgc_mm.reliability import atomic_file
from fgc_mm.reliability.atomic_file import remove_leftovers, write_atomically
from fgc_mm.reliability.checkpoint_hook import SafeCheckpointHook
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.latest_checkpoint import (
    latest_checkpoint,
    own_folders,
)
from fgc_mm.reliability.work_dir_lock import WorkDirLock


def exit_code(function):
    """Of a process that runs it; -9 where SIGKILL has ended it."""
    process = multiprocessing.get_context('fork').Process(target=function)
    process.start()
    process.join(60)
    return process.exitcode


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / 'new folder' / 'a.pth'
    for content in (b'old', b'new'):
        write_atomically(content, path)
        assert path.read_bytes() == content
    assert names(path.parent) == ['a.pth']


@pytest.mark.parametrize('broken', ['fsync', 'replace'])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / 'a.pth'
    write_atomically(b'old', path)

    def fail(*_):
        raise OSError(28, 'No space left on device')

    owner = os if broken == 'fsync' else atomic_file.Path
    monkeypatch.setattr(owner, broken, fail)
    with pytest.raises(OSError, match='No space'):
        write_atomically(b'new', path)
    assert path.read_bytes() == b'old'
    assert names(tmp_path) == ['a.pth']


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.pth'
    write_atomically(b'old', path)

    def write():
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(b'new', path)

    assert exit_code(write) == -signal.SIGKILL
    assert path.read_bytes() == b'old'
    (part,) = remove_leftovers(tmp_path)
    assert part.name.startswith('.a.pth.')
    assert names(tmp_path) == ['a.pth']


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, the last of them named by the pointer."""
    for number in (1, 2, 3):
        path = tmp_path / f'epoch_{number}.pth'
        content = dict(
            meta=dict(epoch=number, iter=number),
            message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
            optimizer=dict(param_groups=[dict(lr=0.1)], state={}),
            state_dict={'a': torch.ones(9)},
        )
        torch.save(content, path)
        os.utime(path, (number, number))
    (tmp_path / 'last_checkpoint').write_text(str(path))
    return tmp_path


def test_the_newest_whole_checkpoint_is_found(folder):
    assert latest_checkpoint(folder) == (folder / 'epoch_3.pth', [])
    whole = (folder / 'epoch_3.pth').read_bytes()
    for torn in (b'', whole[:100], whole[:-1], b'x' * len(whole)):
        (folder / 'epoch_3.pth').write_bytes(torn)
        path, (said,) = latest_checkpoint(folder)
        assert path == folder / 'epoch_2.pth' and 'epoch_3.pth' in said
    (folder / 'epoch_2.pth').write_bytes(b'')
    path, said = latest_checkpoint(folder)
    assert path == folder / 'epoch_1.pth' and len(said) == 2


@pytest.mark.parametrize('pointer', [b'', b'\0\0', b'\xff\xfe', None])
def test_a_torn_pointer_is_not_needed(folder, pointer):
    (folder / 'last_checkpoint').unlink()
    if pointer is not None:
        (folder / 'last_checkpoint').write_bytes(pointer)
    assert latest_checkpoint(folder)[0] == folder / 'epoch_3.pth'


def test_the_best_one_is_no_training_state(folder):
    """It has no optimizer; and it may be newer than the last."""
    (folder / 'last_checkpoint').unlink()
    best = folder / 'best_accuracy_top1_epoch_3.pth'
    best.write_bytes((folder / 'epoch_3.pth').read_bytes())
    assert latest_checkpoint(folder) == (folder / 'epoch_3.pth', [])
    for path in folder.glob('epoch_*.pth'):
        path.unlink()
    assert latest_checkpoint(folder) == (None, [])


def test_the_checkpoint_before_a_damaged_one_is_named(folder, tmp_path):
    """The hook's out_dir may be another folder than the run's."""
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
    assert latest_checkpoint(work_dir) == (folder / 'epoch_3.pth', [])
    (folder / 'epoch_3.pth').write_bytes(b'torn')
    path, (said,) = latest_checkpoint(work_dir)
    assert path == folder / 'epoch_2.pth' and 'epoch_3.pth' in said


def test_no_complete_checkpoint_and_none_at_all(folder):
    for path in folder.glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(FGCError, match=r'epoch_3.pth is empty'):
        latest_checkpoint(folder)
    for path in folder.iterdir():
        path.unlink()
    assert latest_checkpoint(folder) == (None, [])


def test_a_work_dir_has_one_run(tmp_path):
    own = os.getpid()

    def take():
        WorkDirLock().acquire(tmp_path)

    def be_refused():
        with pytest.raises(FGCError, match=f'is in use by process {own} on'):
            take()

    lock = WorkDirLock()
    lock.acquire(tmp_path)
    assert exit_code(be_refused) == 0
    lock.release()
    assert exit_code(take) == 0


def test_an_out_dir_of_two_work_dirs_has_one_run(tmp_path):
    """Work dirs of one name would write to one folder of out_dir."""

    def begin(parent, name='run'):
        (tmp_path / parent / name).mkdir(parents=True, exist_ok=True)
        loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
        hook = SafeCheckpointHook(out_dir=str(tmp_path / 'out'))
        hook.before_run(
            SimpleNamespace(
                _train_loop=loop,
                work_dir=str(tmp_path / parent / name),
                _resume=False,
            )
        )
        return hook

    def be_refused():
        with pytest.raises(FGCError, match='out/run is in use by process'):
            begin('b')

    first = begin('a')
    assert exit_code(be_refused) == 0
    assert exit_code(lambda: begin('a', 'another name')) == 0
    first._lock.release()
    assert exit_code(lambda: begin('c')) == 0
    # its folder in out_dir is the work dir itself
    begin('out')._lock.release()


def test_an_out_dir_that_is_the_work_dir(tmp_path):
    """mmengine writes to it, and to no folder in it."""
    assert own_folders(tmp_path, str(tmp_path)) == [tmp_path]
    within = tmp_path / tmp_path.name
    assert own_folders(within, tmp_path) == [within, within]


def test_a_torn_checkpoint_is_passed_over(real, uninterrupted, tmp_path):
    whole = (uninterrupted / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole)
    os.utime(tmp_path / 'epoch_3.pth', (1, 1))
    (tmp_path / 'epoch_4.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / '.epoch_4.pth.7.part').write_bytes(b'half')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    text = real.run(tmp_path, '--resume')
    (line,) = [x for x in text.splitlines() if 'epoch_4.pth cannot be' in x]
    assert f'Resuming from {tmp_path / "epoch_3.pth"}' in line
    assert not list(tmp_path.glob('.*.part'))
    got = real.result(tmp_path)
    assert real.differences(got, real.result(uninterrupted)) == []


def test_a_full_disk_leaves_the_old_checkpoints(real, tmp_path):
    """No file may grow beyond 100 kB, from the second run on."""
    real.run(tmp_path, train_cfg__max_epochs=1)
    before = (tmp_path / 'epoch_1.pth').read_bytes()
    limit = min(len(before) - 1, 300_000)
    assert limit > 100_000  # the log must fit
    process = real.start(
        tmp_path, '--resume', before=['prlimit', f'--fsize={limit}']
    )
    text, code = real.end(process)
    assert code == 2 and 'Traceback' not in text, text
    (line,) = [x for x in text.splitlines() if x.startswith('error: ')]
    assert 'epoch_2.pth cannot be saved (File too large)' in line
    assert (tmp_path / 'epoch_1.pth').read_bytes() == before
    assert not list(tmp_path.glob('.*.part'))
    assert latest_checkpoint(tmp_path)[0] == tmp_path / 'epoch_1.pth'


def test_outdated_checkpoints_are_removed_after_the_new_one_is_written(
    digits, tmp_path, monkeypatch
):
    options = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    cfg = digits.tiny_config(tmp_path, epochs=3, **options)
    seen = []
    save = atomic_file.AtomicBackend.put

    def put(self, content, path):
        seen.append({x.name for x in tmp_path.glob('epoch_*')})
        save(self, content, path)

    monkeypatch.setattr(atomic_file.AtomicBackend, 'put', put)
    digits.start(cfg).train()
    assert seen == [set(), {'epoch_1.pth'}, {'epoch_2.pth'}]
    assert [x.name for x in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    pointer = (tmp_path / 'last_checkpoint').read_text()
    assert pointer == str(tmp_path / 'epoch_3.pth')
    last = read_checkpoint(tmp_path / 'epoch_3.pth')
    assert last['message_hub']['runtime_info']['keep_ckpt_ids'] == [2, 3]
    # what a kill has left there is removed by the next run
    (tmp_path / 'epoch_2.pth').touch()
    digits.start(
        digits.tiny_config(tmp_path, epochs=4, resume=True, **options)
    ).train()
    assert [x.name for x in tmp_path.glob('*.pth')] == ['epoch_4.pth']


def test_nothing_is_limited_here():
    """The limit of the test above was for its process only."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] < 0
