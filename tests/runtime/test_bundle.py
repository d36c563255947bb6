"""From a config and a checkpoint to a file with its preprocessing."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli.commands import bundle
from fgc_mm.cli.dispatch import parse
from fgc_mm.deploy import PlainForward, build_model, graph
from fgc_mm.deploy.bundle.meta import file_meta
from fgc_mm.errors import FGCError
from fgc_mm.runtime.__main__ import main as predict
from fgc_mm.runtime.format import Program, Value

ROOT = Path(__file__).resolve().parents[2]
captures = pytest.mark.skipif(
    not hasattr(graph, 'program_of'), reason='the graph has no program_of yet'
)


@pytest.fixture(scope='module')
def cfg():
    """ResNet-20 on digits."""
    found = Config.fromfile(ROOT / 'configs' / 'fgc_resnet20_digits.py')
    found.model.backbone.backbone.base_channels = 4
    found.model.head.in_channels = 16
    return found


@pytest.fixture(scope='module')
def model(cfg):
    torch.manual_seed(0)
    built = build_model(cfg)
    for name, weight in built.named_parameters():
        if 'gates' in name and name.endswith('bias'):
            torch.nn.init.normal_(weight)  # some channels are closed
    return built


def outputs_only(model):
    """A program with shapes only."""
    sites = model.macs_table((3, 8, 8)).channels
    shapes = [(3, 8, 8), (10, 1, 1)]
    for channels in sites:
        shapes += [(channels, 1, 1)] * 2
    values = [Value(*shape) for shape in shapes]
    return Program(values=values, outputs=list(range(1, len(values))))


def test_json_of_a_config(cfg, model):
    program = outputs_only(model)
    meta = file_meta(cfg, {}, model, program)
    assert json.loads(json.dumps(meta)) == meta | dict(
        macs=json.loads(json.dumps(meta['macs']))
    )
    assert meta['classes'] == list('0123456789')
    assert meta['scores'] == 'softmax'
    assert meta['config'] == 'fgc_resnet20_digits.py'
    assert meta['preprocessing'] == dict(
        steps=[], bits=16, size=[8, 8], channel_order='rgb',
        mean=[77.8] * 3, std=[95.9] * 3,
    )  # fmt: skip
    table = model.macs_table((3, 8, 8))
    assert [site['name'] for site in meta['sites']] == [*table.sites]
    for site in meta['sites']:
        for key in ('logits', 'output'):
            value = program.values[program.outputs[site[key]]]
            assert value.channels == site['channels']
    assert meta['macs']['dense'] == table.dense


def test_names_of_the_checkpoint_come_first(cfg, model):
    names = [f'digit {n}' for n in range(10)]
    state = dict(meta=dict(dataset_meta=dict(classes=tuple(names))))
    meta = file_meta(cfg, state, model, outputs_only(model))
    assert meta['classes'] == names
    state['meta']['dataset_meta']['classes'] = names[:9]  # of another head
    meta = file_meta(cfg, state, model, outputs_only(model))
    assert meta['classes'] == list('0123456789')


def test_a_program_of_other_outputs_is_refused(cfg, model):
    program = outputs_only(model)
    program.outputs.pop()
    with pytest.raises(FGCError, match='the logits and the mask of'):
        file_meta(cfg, {}, model, program)


@pytest.fixture
def tool(monkeypatch, tmp_path, cfg, model):
    """Runs `fgc-mm export bundle` on the model; where it writes."""
    config, checkpoint = tmp_path / 'digits.py', tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)

    def run(*options, pipeline=None):
        used = cfg.copy()
        if pipeline is not None:
            used.test_dataloader.dataset.pipeline = pipeline
        used.dump(config)
        out = tmp_path / 'out' / 'model.fgc'
        arguments = [config, checkpoint, '--out', out, *options]
        arguments = list(map(str, ['bundle', *arguments]))
        monkeypatch.setattr(sys, 'argv', arguments)
        bundle.main(parse('export bundle'))
        return out

    return run


@captures
@pytest.mark.usefixtures('compiled')
def test_a_picture_has_the_masked_models_classes(
    tool, model, capsys, tmp_path
):
    file = tool('--precision', 'bfloat16')
    assert file.read_bytes()[48:56] == bytes([1, 0, 0, 0, 0, 0, 0, 0])
    capsys.readouterr()
    file = tool()
    printed = capsys.readouterr().out
    assert 'logits of 16 images differ by' in printed
    assert printed.rstrip().endswith('in float32')
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = tmp_path / 'digit.png'
    cv2.imwrite(str(picture), pixels[:, :, ::-1])
    assert predict([str(file), str(picture), '--json', '--top', '10']) == 0
    found = json.loads(capsys.readouterr().out)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    image = model.data_preprocessor(dict(inputs=image))['inputs']
    with torch.no_grad():
        wanted = PlainForward(model)(image).softmax(dim=1)[0]
        (sample,), records = model.predict_gated(image)
    for name, probability in found['classes']:
        assert probability == pytest.approx(float(wanted[int(name)]), abs=1e-4)
    assert found['macs'] == float(sample.macs)
    opened = torch.cat([record.mask for record in records], dim=1) != 0
    assert found['open'] == pytest.approx(float(opened.double().mean()))
    assert 0 < found['open'] < 1


@captures
@pytest.mark.usefixtures('compiled')
def test_pictures_of_a_folder(tool, tmp_path, capsys):
    with pytest.raises(FGCError, match='gives no picture'):
        tool('--images', tmp_path / 'missing')
    (tmp_path / 'one').mkdir()
    cv2.imwrite(str(tmp_path / 'one' / '0.png'), np.zeros((8, 8, 3)))
    with pytest.raises(FGCError, match='images of several sizes'):
        tool('--images', tmp_path / 'one')
    pictures = tmp_path / 'pictures' / 'some'
    pictures.mkdir(parents=True)
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=8),
        dict(type='PackInputs'),
    ]

    def run():
        return tool('--images', pictures.parent, pipeline=steps)

    with pytest.raises(FGCError, match='gives no picture'):
        run()
    for number in range(3):
        pixels = np.full((20, 30, 3), 50 * number, np.uint8)
        cv2.imwrite(str(pictures / f'{number}.jpg'), pixels)
    assert run().exists()
    assert 'logits of 3 images' in capsys.readouterr().out
