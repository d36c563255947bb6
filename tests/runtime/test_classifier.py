"""Pictures from the command line."""

import copy
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fgc_mm.deploy.bundle.writing import write_file
from fgc_mm.errors import FGCError
from fgc_mm.runtime import Model, RuntimeFileError
from fgc_mm.runtime.__main__ import duration, main
from fgc_mm.runtime.classifier import Classifier, probabilities
from fgc_mm.runtime.format import (
    ALL,
    NONE,
    SLACK,
    Act,
    Activation,
    Base,
    Call,
    Conv,
    Mean,
    Program,
    Unary,
    Value,
    encode,
)
from fgc_mm.sites import GateRecord, GateSite

pytestmark = pytest.mark.usefixtures('compiled')
SIZE, CLASSES = 8, 4


META = dict(
    classes=['tabby cat', 'dog', 'ship', '[bold]plane'],
    scores='softmax',
    preprocessing=dict(
        steps=[
            dict(
                resize=dict(
                    edge='both',
                    size=[SIZE, SIZE],
                    interpolation='bilinear',
                    backend='cv2',
                )
            )
        ],
        bits=16,
        size=[SIZE, SIZE],
        channel_order='rgb',
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
    ),
    sites=[dict(name='layer1', channels=3, logits=1, output=2)],
    macs=dict(
        dense=100_000,
        fixed=1000,
        layers=[[64, 3, 3, 1, [], [[0, None]]]],
        positions=[],
    ),
)
WEIGHTS = np.arange(12, dtype='f4').reshape(CLASSES, 3) / 4


def program(**meta):
    """Means of the colours, and classes of them; the darker ones are closed.

    The site's logits are the means less a half.
    """

    def vector(channels, number):
        at = SIZE * SIZE * 3 + 64 * number
        return Value(channels, 1, 1, Base.ARENA, at, 1, 1)

    image = Value(3, SIZE, SIZE, Base.IMAGE, 0, SIZE * SIZE, SIZE)
    conv = Conv(
        1, 4, NONE, ALL, ALL, 1, (1, 1), (1, 1), (0, 0), (1, 1), 0, 3, 1,
        NONE,
    )  # fmt: skip
    return Program(
        arena=SIZE * SIZE * 3 + 64 * 5 + SLACK,
        values=[image, *map(vector, (3, 3, 3, CLASSES), range(4))],
        ops=[
            Mean(0, 1, ALL),
            Unary(1, 2, ALL, Activation(Act.LINEAR, 1, -0.5)),
            Unary(2, 3, ALL, Activation(Act.GREATER, 0)),
            conv,
        ],
        outputs=[4, 2, 3],
        weights=WEIGHTS.ravel(),
        names=['mean', 'logits', 'mask', 'classes'],
        records=1,
        meta={**META, **meta},
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'model.fgc'
    path.write_bytes(encode(program()))
    return path


@pytest.fixture
def cat(tmp_path):
    """Red is 1, green 0.2 and blue 0.6."""
    path = tmp_path / 'cat.png'
    cv2.imwrite(str(path), np.full((20, 30, 3), (153, 51, 255), np.uint8))
    return path


def test_json_has_every_number(file, cat, capsys):
    assert main([str(file), str(cat), str(cat), '--json', '--top', '2']) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert second['classes'] == first['classes']
    logits = WEIGHTS @ np.array([1, 0.2, 0.6], 'f4')
    powers = np.exp(logits) / np.exp(logits).sum()
    assert [name for name, _ in first['classes']] == ['[bold]plane', 'ship']
    assert [p for _, p in first['classes']] == pytest.approx(
        sorted(powers)[:1:-1], rel=1e-5
    )
    assert first['macs'] == 1000 + 64 * 3 * 2
    assert first['share'] == pytest.approx(first['macs'] / 100_000)
    assert first['open'] == pytest.approx(2 / 3)
    assert 0 < first['milliseconds'] < 1000
    assert first['picture'] == str(cat)


def test_the_text_has_classes_and_cost(file, cat, capsys):
    assert main([str(file), str(cat), '--threads', '2']) == 0
    printed = capsys.readouterr().out
    for name in META['classes']:
        assert name in printed
    assert '0.00 million MACs (1.4 % of the dense network)' in printed
    assert '66.7 % of the gated channels open' in printed
    assert ' ms' in printed


def test_errors_are_one_line(file, cat, tmp_path, capsys):
    no_picture = tmp_path / 'text.jpg'
    no_picture.write_text('none')
    plain = tmp_path / 'plain.fgc'
    bare = program()
    bare.meta = {}
    plain.write_bytes(encode(bare))
    newer = tmp_path / 'newer.fgc'
    settings = dict(META['preprocessing'], steps=[dict(turn=90)])
    newer.write_bytes(encode(program(preprocessing=settings)))
    half = tmp_path / 'half.fgc'
    half.write_bytes(encode(program(preprocessing=dict(steps=[]))))
    for arguments, message in (
        ((file, tmp_path / 'none.jpg'), 'none.jpg: No such file'),
        ((file, no_picture), 'text.jpg cannot be decoded'),
        ((tmp_path / 'none.fgc', cat), 'none.fgc'),
        ((no_picture, cat), 'text.jpg'),
        ((plain, cat), "has no 'classes'"),
        ((newer, cat), "the step 'turn'"),
        ((half, cat), "no 'size'"),
    ):
        assert main(list(map(str, arguments))) == 2
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith('error: ') and message in line
        assert not printed.out


def test_a_reader_that_has_left(file, cat, capfd, monkeypatch):
    def leave(*_, **__):
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr('os.dup2', lambda *_: None)
        patch.setattr('builtins.print', leave)
        assert main([str(file), str(cat), '--json']) == 1
    assert capfd.readouterr().err == ''


def test_gates_that_output_nan():
    with Model.from_bytes(encode(program())) as model:
        classifier = Classifier(model)
        images = np.zeros((2, 3, SIZE, SIZE), 'f4')
        images[1, 0] = np.nan
        macs, opened = classifier.cost(model.run(images, decisions=True))
    assert macs[0] == 1000 and np.isnan(macs[1])
    assert opened[0] == 0


def test_nan_is_null(file, capsys, cat, monkeypatch):
    monkeypatch.setattr(
        Classifier, 'cost', lambda *_: (np.array([np.nan]), np.array([0.5]))
    )
    assert main([str(file), str(cat), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['macs'] is None


def test_scores_that_are_nan_are_null(tmp_path, cat, capsys):
    bare = program()
    bare.weights = np.full_like(bare.weights, np.nan)
    path = tmp_path / 'nan.fgc'
    path.write_bytes(encode(bare))
    assert main([str(path), str(cat), '--json', '--top', '2']) == 0
    text = capsys.readouterr().out
    assert 'NaN' not in text
    assert [p for _, p in json.loads(text)['classes']] == [None, None]


def test_independent_classes():
    found = probabilities(np.array([0.0, -800, 800], 'f4'), 'sigmoid')
    np.testing.assert_allclose(found, [0.5, 0, 1])
    found = probabilities(np.array([1000.0, 1000]), 'softmax')
    np.testing.assert_allclose(found, [0.5, 0.5])


SITE = GateSite('layer1', (), (), 3, 3)


class Masked(nn.Module):
    """A classifier in torch that computes what the program does.

    Args:
        factor: Of the logits.
        shift: Of the gate's logits.
    """

    def __init__(self, factor=1.0, shift=0.0):
        super().__init__()
        self.shift = shift
        self.head = nn.Linear(3, CLASSES, bias=False)
        self.head.weight.data = factor * torch.from_numpy(WEIGHTS)

    def _extract_gated(self, images):
        means = images.mean(dim=(2, 3))
        logits = means - 0.5 + self.shift
        mask = (logits > 0).float()
        return means, [GateRecord(SITE, None, logits, logits.sigmoid(), mask)]


IMAGES = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator())


def test_a_file_that_is_written_is_right(tmp_path):
    path = tmp_path / 'new' / 'model.fgc'
    written = write_file(program(), Masked(), IMAGES, path)
    assert (written.images, written.edge) == (5, 0)
    assert written.gap < 1e-5
    assert written.size == path.stat().st_size
    assert 1000 <= written.macs <= 1000 + 64 * 9
    assert [p.name for p in path.parent.iterdir()] == ['model.fgc']


@pytest.mark.parametrize('factor', [1.01, float('nan')])
def test_a_file_that_is_wrong_is_not_written(tmp_path, factor):
    path = tmp_path / 'model.fgc'
    path.write_text('the old one')
    with pytest.raises(FGCError, match='so it is not written'):
        write_file(program(), Masked(factor), IMAGES, path)
    assert path.read_text() == 'the old one'
    assert [p.name for p in tmp_path.iterdir()] == ['model.fgc']


def test_a_program_that_calls_torch_is_not_written(tmp_path):
    calling = program()
    calling.ops.insert(0, Call(0, [0], [1]))
    calling.names.insert(0, 'layer1.roll')
    with pytest.raises(FGCError, match=r'layer1\.roll is computed by torch'):
        write_file(calling, Masked(), IMAGES, tmp_path / 'model.fgc')
    assert not list(tmp_path.iterdir())


def test_a_gate_that_rounding_decides(tmp_path):
    """Of one image; where that is all, nothing has been compared."""
    path = tmp_path / 'model.fgc'
    levels = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    images = levels.view(5, 1, 1, 1).expand(5, 3, SIZE, SIZE)

    class Rounded(Masked):
        """Wrong where the gate differs."""

        def _extract_gated(self, images):
            means, (record,) = super()._extract_gated(images)
            differs = (record.mask != 0).any(dim=1) & (
                record.logits < 1e-2
            ).all(1)
            return means + differs[:, None], [record]

    written = write_file(program(), Rounded(shift=5e-5), images, path)
    assert written.edge == 1 and written.gap < 1e-5
    with pytest.raises(FGCError, match='so it is not written'):
        write_file(program(), Rounded(shift=5e-5), images[2:3], path)
    with pytest.raises(FGCError, match='so it is not written'):
        write_file(program(), Rounded(shift=1e-3), images, path)


def test_a_file_without_its_json():
    bare = program()
    bare.meta = {}
    with (
        Model.from_bytes(encode(bare)) as model,
        pytest.raises(RuntimeFileError, match=r'bundle\.py'),
    ):
        Classifier(model)


def _without(meta, *path):
    """The JSON without the key at the end of a path."""
    part = meta = copy.deepcopy(meta)
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return meta


@pytest.mark.parametrize(
    'path',
    [
        ('scores',),
        ('preprocessing', 'mean'),
        ('preprocessing', 'std'),
        ('preprocessing', 'steps', 0, 'resize', 'backend'),
        ('macs', 'fixed'),
        ('sites', 0, 'output'),
    ],
)
def test_a_file_without_a_setting(path):
    bare = program(**META)
    bare.meta = _without(META, *path)
    with (
        Model.from_bytes(encode(bare)) as model,
        pytest.raises(RuntimeFileError, match=rf"has no '{path[-1]}'"),
    ):
        Classifier(model)


@pytest.mark.parametrize(
    ('name', 'numbers'),
    [('std', None), ('mean', None), ('std', [1.0, 2.0]), ('mean', 3.0)],
)
def test_a_file_with_a_wrong_normalisation(name, numbers):
    settings = {**META['preprocessing'], name: numbers}
    bare = program(preprocessing=settings)
    with (
        Model.from_bytes(encode(bare)) as model,
        pytest.raises(RuntimeFileError, match=f'has {name}='),
    ):
        Classifier(model)


WRONG = {
    'classes': [['cat'], 5, {'a': 1}, dict(a=1, b=2, c=3, d=4), 'abcd',
                ['a', 'b', 'c', 4]],
    'scores': [5, 'none'],
    'sites': [[], 5],
    'sites.0.output': [99, -1, 'x', True],
    'sites.0.logits': ['x', 1.0],
    'preprocessing.channel_order': ['zzz', 'grey', []],
    'preprocessing.bits': ['x', 7, 17],
    'preprocessing.size': [5, [8, 9], [8]],
    'preprocessing.steps': [5, [5], [dict(crop=5)], [dict(crop=[0, 4])]],
    'preprocessing.steps.0.resize.size': [0, 8, [8, 10**9], [8.0, 8.0]],
    'preprocessing.steps.0.resize.backend': [[], 'x', 5],
    'preprocessing.steps.0.resize.interpolation': [[], 'x', 'box'],
    'preprocessing.steps.0.resize.edge': ['middle', []],
    'preprocessing.mean': [['a', 'b', 'c']],
    'preprocessing.std': [[0.0, 1.0, 1.0], [float('nan')] * 3],
    'macs.dense': [0, 'x', None],
    'macs.fixed': [None, -1],
    'macs.layers': [5, [[1]], [[64, 3, 3, 2, [], []]], [[64, 3, 3, 0, [], []]],
                    [[64, 3, 3, 1, [], [[77, None]]]],
                    [[64, 3, 3, 1, [], [[-1, None]]]],
                    [[64, 3, 4, 1, [], [[0, None]]]],
                    [[64, 3, 3, 1, [], [[0, 0]]]],
                    [[10**30, 3, 3, 1, [], [[0, None]]]],
                    [[1, 2**37, 3, 1, [], [[0, None]]]]],
}  # fmt: skip


@pytest.mark.parametrize(
    ('path', 'value'),
    [(path, value) for path, values in WRONG.items() for value in values],
)
def test_json_that_is_inconsistent(path, value):
    meta = copy.deepcopy(META)
    *parts, last = [int(x) if x.isdigit() else x for x in path.split('.')]
    part = meta
    for key in parts:
        part = part[key]
    part[last] = value
    with (
        Model.from_bytes(encode(program(**meta))) as model,
        pytest.raises(RuntimeFileError, match=r'file.s JSON .*bundle\.py'),
    ):
        Classifier(model)


@pytest.mark.parametrize(
    'runs',
    [
        5,
        [[5]],
        [[]],
        [[[0, 10**12]]],
        [[[0, 4]]],
        [[[-2, 3]]],
        [[[0, 3]], [[-1, 2**24]] * 2],
    ],
)
@pytest.mark.parametrize('used', [True, False])
def test_positions_that_are_inconsistent(runs, used):
    if not used and runs in ([[[0, 4]]],):
        return  # fits another site
    layers = [[64, 3, 3, 1, [], [[0, 0 if used else None]]]]
    macs = dict(META['macs'], layers=layers, positions=runs)
    with (
        Model.from_bytes(encode(program(macs=macs))) as model,
        pytest.raises(RuntimeFileError, match='does not describe'),
    ):
        Classifier(model)


@pytest.mark.parametrize(
    'step',
    [
        dict(crop=[10**6, 8]),
        dict(resize=dict(edge='within', size=[8, float('inf')],
                         interpolation='area', backend='cv2')),
        dict(resize=dict(edge='within', size=[100_000, 8],
                         interpolation='box', backend='pillow')),
        dict(resize=dict(edge='short', size=8, interpolation='nearest',
                         backend='cv2')),
        dict(turn=90),  # named when it is reached
    ],
)  # fmt: skip
def test_unusual_steps_are_accepted(step):
    settings = dict(META['preprocessing'], steps=[step])
    data = encode(program(preprocessing=settings))
    with Model.from_bytes(data) as model:
        Classifier(model)


def test_no_sites_are_named():
    macs = dict(META['macs'], layers=[])
    data = encode(program(sites=[], macs=macs))
    with (
        Model.from_bytes(data) as model,
        pytest.raises(RuntimeFileError, match='wrong sites'),
    ):
        Classifier(model)


def test_too_little_memory_is_one_sentence(file, cat, capsys, monkeypatch):
    def load(_):
        raise MemoryError('the model needs 2199023 MB: use a smaller one')

    monkeypatch.setattr(Model, 'load', load)
    assert main([str(file), str(cat)]) == 2
    assert capsys.readouterr().err.startswith('error: the model needs 2199023')


def test_names_that_the_terminal_cannot_print(file, cat):
    picture = cat.with_name('ü.png')
    cat.rename(picture)
    done = subprocess.run(
        [sys.executable, '-m', 'fgc_mm.runtime', file, picture],
        env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '\\xfc.png' in done.stdout and 'tabby cat' in done.stdout


@pytest.mark.parametrize('option', ['--top', '--threads'])
@pytest.mark.parametrize('value', ['0', '-1', 'x', '1.5'])
def test_what_is_no_count_is_refused(option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['model.fgc', 'cat.jpg', f'{option}={value}'])
    assert stopped.value.code == 2
    assert f'argument {option}: ' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('milliseconds', 'text'),
    [(12.345, '12.35 ms'), (0.1, '0.10 ms'), (0.0043, '0.0043 ms')],
)
def test_short_times_keep_their_digits(milliseconds, text):
    assert duration(milliseconds) == text
