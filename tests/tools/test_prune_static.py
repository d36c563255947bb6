"""Static pruning to a ratio of MACs, from the files that it leaves."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from fgc_mm.cli.commands import prune_static as prune_static_command
from fgc_mm.deploy.compaction.static_groups import find_groups
from fgc_mm.deploy.compaction.static_pruning import prune_static
from fgc_mm.deploy.compaction.zeroed import prune_zeroed
from fgc_mm.deploy.loading import build_trained
from fgc_mm.errors import FGCError
from fgc_mm.models import build_macs_table
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'dense_resnet20_digits.py'
HEAD = dict(type='LinearClsHead', num_classes=10, in_channels=64)


def classifier(backbone, channels=64):
    """With weights and statistics that differ between channels."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(HEAD, in_channels=channels),
        )
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    model.eval()
    return model


@pytest.fixture(scope='module')
def resnet20():
    return classifier(dict(type='fgc_mm.CifarResNet', depth=20))


@pytest.fixture(scope='module')
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.manual_seed(1))


def test_only_inner_channels_of_the_cifar_resnet_go(resnet20, images):
    groups = find_groups(resnet20.backbone, images)
    paths = [{m.path for m in group.members} for group in groups]
    assert sorted(map(sorted, paths)) == sorted(
        [f'layer{s}.{b}.bn1', f'layer{s}.{b}.conv1', f'layer{s}.{b}.conv2']
        for s in (1, 2, 3)
        for b in (0, 1, 2)
    )


def naive_fpgm(model, path):
    """Channels by their filters' and columns' distances, by loops."""
    backbone = model.backbone
    rows = backbone.get_submodule(path).weight.flatten(1)
    columns = backbone.get_submodule(path.replace('conv1', 'conv2')).weight
    columns = columns.transpose(0, 1).flatten(1)
    total = torch.zeros(len(rows))
    for side in (rows**2, columns**2):
        for i in range(len(side)):
            total[i] += sum(float((side[i] - other).norm()) for other in side)
    return total.argsort().tolist()


def test_fpgm_takes_the_most_replaceable(resnet20, images):
    pruned = prune_static(resnet20, 'fpgm', 0.55, images)
    for path in ('layer1.0.conv1', 'layer3.2.conv1'):
        kept = pruned.channel_map.layers[path].outputs
        order = naive_fpgm(resnet20, path)
        assert set(order[-len(kept) :]) == set(kept)


@pytest.mark.parametrize('importance', ['group_norm', 'bn_scale', 'random'])
@pytest.mark.parametrize('ratio', [0.2, 0.55, 0.8])
def test_the_ratio_is_met(resnet20, images, importance, ratio):
    pruned = prune_static(resnet20, importance, ratio, images)
    # counted anew: k*k*in*out*h*w of every conv, and the classifier
    sizes = {'layer1': 8, 'layer2': 4, 'layer3': 2}
    totals = []
    for model in (resnet20, pruned.model):
        total = model.head.fc.weight.numel()
        for name, module in model.backbone.named_modules():
            if isinstance(module, nn.Conv2d):
                side = sizes.get(name[:6], 8)
                total += module.weight.numel() * side**2
        totals.append(total)
    assert totals == [pruned.dense, pruned.macs]
    assert pruned.pruning_ratio == pytest.approx(ratio, abs=0.01)
    # removed channels have no reader
    for path, kept in pruned.channel_map.layers.items():
        if path.endswith('conv2'):
            gone = set(range(kept.widths[1])) - set(kept.inputs)
            resnet20.backbone.get_submodule(path).weight.data = silenced(
                resnet20.backbone.get_submodule(path).weight, gone
            )
    with torch.no_grad():
        assert torch.allclose(
            resnet20(images), pruned.model(images), rtol=1e-4, atol=1e-4
        )


def silenced(weight, channels):
    weight = weight.detach().clone()
    for channel in channels:
        weight[:, channel] = 0
    return weight


@pytest.fixture(autouse=True)
def unharmed(resnet20):
    before = {k: v.clone() for k, v in resnet20.state_dict().items()}
    yield
    resnet20.load_state_dict(before)


@pytest.mark.parametrize(
    ('backbone', 'channels', 'size'),
    [
        (dict(type='ResNet', depth=18, base_channels=16, stem_channels=16),
         128, 32),
        (dict(type='MobileNetV2', widen_factor=0.35), 1280, 32),
        (dict(type='SEResNet', depth=50, base_channels=8, stem_channels=8),
         256, 32),
    ],
)  # fmt: skip
def test_other_networks_keep_their_outputs(backbone, channels, size):
    """prune_static itself compares with the whole network; here: anew."""
    model = classifier(backbone, channels)
    pruned = prune_static(
        model, 'group_norm', 0.5, torch.randn(2, 3, size, size)
    )
    assert pruned.pruning_ratio == pytest.approx(0.5, abs=0.01)
    macs = build_macs_table(pruned.model, (3, size, size)).dense
    assert macs == pruned.macs
    before, after = (
        m.backbone(torch.randn(1, 3, size, size))[-1].shape
        for m in (model, pruned.model)
    )
    assert before == after


@pytest.fixture(scope='module')
def written(tmp_path_factory, resnet20):
    """What the tool writes for random weights; moved afterwards."""
    folder = tmp_path_factory.mktemp('pruned')
    state = resnet20.state_dict()
    torch.save(dict(state_dict=state, meta={}), folder / 'dense.pth')
    return folder


def test_the_files_make_the_pruned_model(tool, written):
    out = written / 'out'
    code, said = tool(
        'prune_static', CONFIG, written / 'dense.pth', '--out', out,
        '--name', 'small', '--pruning-ratio', '0.4',
    )  # fmt: skip
    assert code == 0, said
    moved = written / "a user's folder"
    shutil.move(out, moved)
    assert sorted(p.name for p in moved.iterdir()) == [
        'small.pth', 'small.py', 'small_channel_map.json',
    ]  # fmt: skip
    cfg = Config.fromfile(moved / 'small.py')
    assert cfg.load_from == str(moved / 'small.pth')
    assert cfg.param_scheduler == Config.fromfile(CONFIG).param_scheduler
    model = build_trained(cfg, str(moved / 'small.pth'), gated=False)
    kept = json.loads((moved / 'small_channel_map.json').read_text())['layers']
    state = read_checkpoint(moved / 'small.pth')['state_dict']
    dense = read_checkpoint(written / 'dense.pth')['state_dict']
    name = 'layer2.1.conv1'
    key = f'backbone.{name}.weight'
    outputs = kept[name]['outputs']
    assert len(outputs) < 32
    assert torch.equal(state[key], dense[key][outputs])
    assert model.backbone.layer2[1].conv1.weight.shape[0] == len(outputs)


def test_test_py_reads_it(tool, written):
    code, said = tool(
        'prune_static', CONFIG, written / 'dense.pth', '--out', written / 'b',
        '--name', 'small',
    )  # fmt: skip
    assert code == 0, said
    code, said = tool(
        'test', written / 'b' / 'small.py', written / 'b' / 'small.pth',
        '--work-dir', written / 'test', '--out', written / 'm.json',
        '--out-item', 'metrics',
    )  # fmt: skip
    assert code == 0, said
    assert 'accuracy/top1' in json.loads((written / 'm.json').read_text())


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['--pruning-ratio', '1.5'], 'pruning_ratio=1.5 is not a fraction'),
        (['--pruning-ratio', '0.99'], 'pruning_ratio=0.99 is out of reach'),
        (['--importance', 'best'], "--importance 'best' is unknown"),
    ],
)
def test_bad_arguments(tool, written, arguments, told):
    code, said = tool(
        'prune_static', CONFIG, written / 'dense.pth', '--out',
        written / 'no', *arguments,
    )  # fmt: skip
    assert code == 2
    assert told in said and 'Traceback' not in said
    assert not (written / 'no').exists()


def test_gates_and_other_checkpoints_are_refused(tool, written, tiny, images):
    code, said = tool(
        'prune_static', CONFIG, written / 'none.pth', '--out', written / 'no'
    )
    assert code == 2 and 'none.pth is not a file' in said
    with pytest.raises(FGCError, match='the model has gates'):
        prune_static(tiny.build(), 'fpgm', 0.5, images)
    with pytest.raises(FGCError, match="importance='best' is unknown"):
        prune_static(tiny.build(), 'best', 0.5, images)


class Features(nn.Module):
    """As a backbone returns them."""

    def forward(self, x):
        return (x,)


@pytest.mark.parametrize('asked', [0.05, 0.005])
def test_the_closest_ratio_can_be_asked_for(images, asked):
    """With four channels the steps are 25 %; 0 is closer, but is no ratio."""
    convs = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
    model = classifier(nn.Sequential(*convs, Features()), 8)
    with pytest.raises(FGCError, match='cannot be met') as error:
        prune_static(model, 'fpgm', asked, images)
    (ratio,) = re.findall(r'closest ratio is ([.\d]+);', str(error.value))
    pruned = prune_static(model, 'fpgm', float(ratio), images)
    assert pruned.pruning_ratio == pytest.approx(0.25, abs=0.01)


def test_a_channel_that_only_has_no_reader_stays(images):
    """It depends on the image; a zero filter makes it a constant."""
    convs = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
    model = classifier(nn.Sequential(*convs, Features()), 8)
    with torch.no_grad():
        convs[1].weight[:, 2] = 0
        with pytest.raises(FGCError, match='has a zero filter and no reader'):
            prune_zeroed(model, images)
        convs[0].weight[2] = 0
    assert prune_zeroed(model, images).channel_map.layers['0'].outputs == (
        0,
        1,
        3,
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(images, dtype):
    """Its rounding is larger than the difference that is accepted."""
    convs = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)
    model = classifier(nn.Sequential(*convs, Features()), 8).to(dtype)
    with pytest.raises(FGCError, match=rf'computes in {dtype}.*float\(\)'):
        prune_static(model, 'fpgm', 0.25, images.to(dtype))
    with pytest.raises(FGCError, match=rf'computes in {dtype}.*float\(\)'):
        prune_zeroed(model, images.to(dtype))


def test_two_networks_share_a_folder(tool, written):
    folder = written / 'shared'
    for ratio in ('0.4', '0.2'):
        code, said = tool(
            'prune_static', CONFIG, written / 'dense.pth', '--out', folder,
            '--pruning-ratio', ratio, '--name', f'less_{ratio[-1]}',
        )  # fmt: skip
        assert code == 0, said
    for number in (2, 4):
        path = folder / f'less_{number}.py'
        small = build_trained(
            Config.fromfile(path), str(path.with_suffix('.pth')), gated=False
        )
        assert small.backbone.layer1[0].conv1.out_channels < 16


def test_a_network_that_failed_the_check_has_no_config(
    tool, written, monkeypatch
):
    """A comparison would take it for a pruned one."""
    monkeypatch.setattr(
        prune_static_command, 'build_macs_table',
        lambda *_: SimpleNamespace(dense=1),
    )  # fmt: skip
    code, said = tool(
        'prune_static', CONFIG, written / 'dense.pth', '--out', written / 'c',
        '--name', 'small',
    )  # fmt: skip
    assert code == 2 and 'small.py builds another network' in said
    assert not [*(written / 'c').glob('*.py')]
