"""Valid checkpoints load; damaged and malicious ones are refused."""

import io
import itertools
import os
import pickle
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fgc_mm.errors import FGCError
from fgc_mm.reliability import checkpoint_loaders
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.resumable import check_resumable

# mmengine keeps its loggers by name, and names are by the second
RUNS = itertools.count()


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(2, 2)

    def forward(self, *images, mode='loss'):
        return dict(loss_fit=self.line(torch.stack(images)).square().mean())


@HOOKS.register_module(force=True)
class NumpyStateHook(Hook):
    """Saves what a hook may want to save: numbers and random state."""

    def before_save_checkpoint(self, runner, checkpoint):
        del runner
        checkpoint['extra'] = dict(
            scalar=np.float32(2),
            flag=np.bool_(True),
            rng=np.random.get_state(),
        )


def run(folder, epochs, **kwargs):
    kwargs.setdefault(
        'param_scheduler',
        dict(type='OneCycleLR', eta_max=0.1, total_steps=9, by_epoch=False),
    )
    runner = Runner(
        Line(),
        str(folder),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 4,
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        custom_hooks=[dict(type='EMAHook'), dict(type='NumpyStateHook')],
        default_scope='mmengine',
        experiment_name=f'run{next(RUNS)}',
        **kwargs,
    )
    runner.train()
    return runner


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs') / 'first'
    folder.mkdir()
    run(folder, epochs=1)
    return folder / 'epoch_1.pth'


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target, how=os.mkdir):
        self.target, self.how = target, how

    def __reduce__(self):
        return self.how, (str(self.target),)


class Attribute:
    """Unpickles into an attribute of something allowed."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def refused(path, load=read_checkpoint):
    """The refusal: one sentence that names the file."""
    with pytest.raises(FGCError) as caught:
        load(str(path))
    text = str(caught.value)
    assert str(path) in text and '\n' not in text and text.endswith('.')
    return text


def test_reads_what_mmengine_writes(saved):
    content = read_checkpoint(saved)
    buffer = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer) and buffer.mean() > 0
    assert content['extra']['scalar'] == 2
    assert content['extra']['rng'][1].dtype == np.uint32
    check_resumable(saved)


@pytest.mark.parametrize(
    'scheduler',
    [
        dict(type='OneCycleLR', eta_max=0.1, total_steps=9, by_epoch=False),
        dict(
            type='OneCycleLR',
            eta_max=0.1,
            total_steps=9,
            by_epoch=False,
            anneal_strategy='linear',
        ),
        dict(type='ReduceOnPlateauLR', monitor='loss'),
        [
            dict(type='LinearLR', end=1),
            dict(type='CosineAnnealingLR', T_max=2),
        ],
        dict(type='MultiStepLR', milestones=[1, 2]),
    ],
    ids=lambda s: s['type'] if isinstance(s, dict) else 'list',
)
@pytest.mark.parametrize('how', ['auto', 'path'])
def test_resumes(tmp_path, scheduler, how):
    folder = tmp_path / 'run'
    folder.mkdir()
    run(folder, epochs=1, param_scheduler=scheduler)
    path = None if how == 'auto' else str(folder / 'epoch_1.pth')
    again = run(
        folder, 2, param_scheduler=scheduler, resume=True, load_from=path
    )
    assert again.epoch == 2 and again.iter == 4


@pytest.mark.parametrize('path', ['numpy.core', 'numpy._core'])
def test_reads_numpy_1_and_2(saved, tmp_path, path):
    other = tmp_path / 'other.pth'
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(other, 'w') as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith('data.pkl'):
                assert b'core.multiarray\n' in data
                data = data.replace(b'numpy._core.', b'numpy.core.')
                data = data.replace(b'numpy.core.', f'{path}.'.encode())
            new.writestr(entry.filename, data)
    content = read_checkpoint(other)
    assert content['message_hub']['log_scalars']['train/loss'].mean() > 0


def test_reads_plain_and_old_files(tmp_path):
    weights = torch.nn.Linear(2, 2).state_dict()
    for name, new in (('new.pth', True), ('old.pth', False)):
        torch.save(
            weights, tmp_path / name, _use_new_zipfile_serialization=new
        )
        assert read_checkpoint(tmp_path / name).keys() == weights.keys()


def test_reads_a_file_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(a=torch.ones(2)), tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / 'a.pth')['a'].sum() == 2


def test_missing_and_empty(tmp_path):
    assert 'is not a file' in refused(tmp_path / 'none.pth')
    assert 'is not a file' in refused(tmp_path)
    (tmp_path / 'empty.pth').touch()
    assert 'is empty (0 bytes)' in refused(tmp_path / 'empty.pth')


@pytest.mark.parametrize('share', [0.01, 0.5, 0.9, 1.0])
def test_truncated(saved, tmp_path, share):
    content = saved.read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(content[: int(len(content) * share) - 1])
    assert 'cannot be read' in refused(path)


def test_a_changed_byte_of_a_weight(tmp_path):
    path = tmp_path / 'flipped.pth'
    torch.save(dict(a=torch.zeros(1000)), path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(2000)) + 1000] ^= 1
    path.write_bytes(content)
    assert torch.load(path)['a'].any()  # torch itself raises no error
    assert 'Bad CRC-32' in refused(path)


@pytest.mark.parametrize(
    'content',
    [b'hello, no checkpoint', b'\x89PNG\r\n\x1a\n' + bytes(99), bytes(500)],
)
def test_another_format(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    assert 'cannot be read' in refused(path)


@pytest.mark.parametrize(
    'content, kind',
    [
        (torch.ones(2), 'a Tensor'),
        ([torch.ones(2)], 'a list'),
        (dict(epoch=1, state_dict={}), 'a dict without weights'),
    ],
)
def test_no_checkpoint(tmp_path, content, kind):
    torch.save(content, tmp_path / 'other.pth')
    assert f'contains {kind}' in refused(tmp_path / 'other.pth')


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('how', [os.mkdir, os.system, eval, open])
def test_a_malicious_file_runs_no_code(tmp_path, how, new):
    path, target = tmp_path / 'hostile.pth', tmp_path / 'made'
    command = {
        os.system: f'touch {target}',
        eval: f'open({str(target)!r}, "w")',
    }
    content = dict(
        state_dict=dict(a=torch.ones(1)),
        message_hub=Payload(command.get(how, target), how),
    )
    torch.save(content, path, _use_new_zipfile_serialization=new)
    text = refused(path)
    assert 'refers to code' in text and 'was not run' in text
    for load in (
        partial(load_checkpoint, Line()),
        partial(CheckpointLoader.load_checkpoint, logger=None),
        check_resumable,
    ):
        refused(path, load)
    assert not target.exists()


def test_hostile_file_is_refused_by_the_runner(tmp_path):
    path, target = tmp_path / 'hostile.pth', tmp_path / 'made'
    torch.save(dict(a=torch.ones(1), b=Payload(target)), path)
    folder = tmp_path / 'run'
    folder.mkdir()
    for resume in (False, True):
        with pytest.raises(FGCError, match='refers to code'):
            run(folder, 1, load_from=str(path), resume=resume)
    assert not target.exists()


def test_a_config_in_a_checkpoint_is_not_run(tmp_path):
    """MMEngine runs the text when it resumes from a checkpoint of mmcv."""
    run(tmp_path, 1)
    path, target = tmp_path / 'epoch_1.pth', tmp_path / 'made'
    content = read_checkpoint(path)
    content['meta']['config'] = f'import os\nos.mkdir({str(target)!r})'
    torch.save(content, path)
    run(tmp_path, 2, resume=True)
    assert (tmp_path / 'epoch_2.pth').is_file() and not target.exists()


@pytest.mark.parametrize(
    'owner, name',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, 'update'),
        (np.ndarray, 'tofile'),
        (np.ndarray, 'mean'),
    ],
)
def test_getattr_reaches_only_the_log_buffers_methods(tmp_path, owner, name):
    path = tmp_path / 'hostile.pth'
    torch.save(dict(a=torch.ones(1), b=Attribute(owner, name)), path)
    assert 'refers to code (getattr of' in refused(path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_bare_pickle(tmp_path):
    path, target = tmp_path / 'bare.pkl', tmp_path / 'made'
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Payload(target), protocol))
        refused(path)
    assert not target.exists()


def test_whole_pickled_model(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'model.pth')
    assert 'Linear' in refused(tmp_path / 'model.pth')


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=Line().state_dict()), path)
    assert 'has no message_hub and no meta' in refused(path, check_resumable)


def test_every_scheme_of_mmengine_is_ours():
    checkpoint_loaders.register_safe_loader()
    for loader in CheckpointLoader._schemes.values():
        assert loader.__module__ == checkpoint_loaders.__name__
        assert loader.__name__.startswith('load_from_')


def test_reads_after_others_have_cleared_the_list(saved):
    torch.serialization.clear_safe_globals()
    assert 'message_hub' in read_checkpoint(saved)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server for tmp_path/site, and an empty cache of torch."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            del arguments

    site = tmp_path / 'site'
    site.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch home'))
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield site, f'http://127.0.0.1:{web.server_port}'
        web.shutdown()


def test_http(server):
    site, url = server
    torch.save(Line().state_dict(), site / 'line.pth')
    load_checkpoint(Line(), f'{url}/line.pth', strict=True)
    (site / 'line.pth').unlink()
    load_checkpoint(Line(), f'{url}/line.pth', strict=True)  # from the cache


def test_files_of_one_name_from_two_addresses(server):
    """As the checkpoints of two runs."""
    site, url = server
    for value, run_name in enumerate(('first', 'second')):
        (site / run_name).mkdir()
        torch.save(dict(a=torch.full((2,), value)), site / run_name / 'a.pth')
    for value, run_name in enumerate(('first', 'second')):
        found = CheckpointLoader.load_checkpoint(f'{url}/{run_name}/a.pth')
        assert found['a'].tolist() == [value, value]


def test_a_published_file_is_where_torch_keeps_it(server):
    """So that it can be put there on a machine without a network."""
    _, url = server
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(a=torch.ones(2)), folder / 'net-0123456789ab.pth')
    load = CheckpointLoader.load_checkpoint
    assert load(f'{url}/none/net-0123456789ab.pth')['a'].sum() == 2


def test_http_hostile_and_missing(server, tmp_path):
    site, url = server
    torch.save(dict(a=Payload(tmp_path / 'made')), site / 'hostile.pth')
    with pytest.raises(FGCError, match='refers to code'):
        load_checkpoint(Line(), f'{url}/hostile.pth')
    assert not (tmp_path / 'made').exists()
    with pytest.raises(FGCError, match='cannot be downloaded'):
        load_checkpoint(Line(), f'{url}/none.pth')


def test_published_names(tmp_path, monkeypatch):
    weights = {'backbone.a': torch.ones(1), 'head.b': torch.ones(1)}
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    lists = checkpoint_loaders.mmengine_checkpoint
    for name in ('get_torchvision_models', 'get_mmcls_models'):
        urls = {'net': str(tmp_path / 'a.pth')}
        monkeypatch.setattr(lists, name, lambda urls=urls: urls)
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(lists, 'get_external_models', lambda: {'n': 'a.pth'})
    load = partial(CheckpointLoader.load_checkpoint, logger=None)
    assert load('torchvision://net')['state_dict'].keys() == weights.keys()
    assert load('open-mmlab://n')['state_dict'].keys() == weights.keys()
    assert list(load('mmcls://net')['state_dict']) == ['a']
    for scheme in ('torchvision', 'openmmlab', 'mmcls'):
        assert 'is unknown' in refused(f'{scheme}://none', load)
    assert 'no safe loader' in refused('pavi://x', load)


def test_storage_backend(monkeypatch):
    class Store:
        def get(self, name):
            assert name == 's3://bucket/a.pth'
            stream = io.BytesIO()
            torch.save(dict(a=torch.ones(1)), stream)
            return stream.getvalue()

    monkeypatch.setattr(
        checkpoint_loaders, 'get_file_backend', lambda *_, **__: Store()
    )
    load = CheckpointLoader.load_checkpoint
    assert load('s3://bucket/a.pth', logger=None)['a'] == 1


@pytest.mark.parametrize('place', ['meta', torch.device('meta'), None])
def test_a_run_reads_its_checkpoint_to_the_cpu(tmp_path, place):
    file = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(2))), file)
    loaded = CheckpointLoader.load_checkpoint(str(file), place)
    assert loaded['state_dict']['w'].device.type == 'cpu'
    loaded = CheckpointLoader.load_checkpoint(
        str(file), lambda storage, _: storage
    )
    assert loaded['state_dict']['w'].tolist() == [1, 1]
