"""Channel maps shrink networks and checkpoints."""

import copy
import json

import pytest
import torch
import torch_pruning as tp
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap
from fgc_mm.registry import MODELS

RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)


def build(cfg):
    torch.manual_seed(0)
    network = MODELS.build(cfg)
    network.eval()
    return network


def pruned_by_torch_pruning(network, share):
    """The network shrunk by torch-pruning, and its channels by layer."""
    names = {module: name for name, module in network.named_modules()}
    with torch.enable_grad():
        return _pruned(network, names, share)


def _pruned(network, names, share):
    pruner = tp.MagnitudePruner(
        network, torch.zeros(1, 3, 64, 64),
        importance=tp.importance.MagnitudeImportance(),
        pruning_ratio=share,
    )  # fmt: skip
    outputs, inputs = {}, {}
    for group in pruner.step(interactive=True):
        for dep, gone in group:
            module, side = dep.target.module, inputs
            if module not in names:
                continue
            if pruner.DG.is_out_channel_pruning_fn(dep.handler):
                side = outputs
            widths = {
                nn.Conv2d: lambda m: (m.out_channels, m.in_channels),
                nn.BatchNorm2d: lambda m: (m.num_features,) * 2,
            }[type(module)](module)
            kept = side.setdefault(
                names[module], [*range(widths[side is inputs])]
            )
            kept[:] = [k for i, k in enumerate(kept) if i not in set(gone)]
        group.prune()
    for name in names.values():  # of a norm the two sides are one
        if 'bn' in name:
            inputs.pop(name, None)
    return outputs, inputs


@pytest.mark.parametrize(
    'cfg', [RESNET, dict(type='MobileNetV2', widen_factor=0.5)]
)
@torch.no_grad()
def test_it_rebuilds_what_torch_pruning_made(cfg, well_used, tmp_path):
    whole = well_used(build(cfg))
    small = copy.deepcopy(whole)
    outputs, inputs = pruned_by_torch_pruning(small, 0.4)
    file = tmp_path / 'channels.json'
    file.write_text(ChannelMap.of(whole, outputs, inputs).text())
    again = build(
        dict(type='fgc_mm.ChannelMapBackbone', backbone=cfg,
             channel_map=str(file))
    )  # fmt: skip
    assert type(again) is type(whole)
    again.load_state_dict(small.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(images)[0], small(images)[0])
    # and a checkpoint of the whole network loses the same channels
    fresh = build(
        dict(type='fgc_mm.ChannelMapBackbone', backbone=cfg,
             channel_map=str(file))
    )  # fmt: skip
    fresh.load_state_dict(whole.state_dict())
    assert torch.equal(fresh(images)[0], small(images)[0])
    sizes = [sum(p.numel() for p in n.parameters()) for n in (small, whole)]
    assert sizes[0] < 0.6 * sizes[1]


@torch.no_grad()
def test_grouped_convs_lose_as_many_in_each_group():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, groups=4), nn.Conv2d(4, 2, 1)
    )
    whole = copy.deepcopy(net)
    kept = [1, 2, 4, 7]  # one of each group
    ChannelMap.of(net, {'0': kept}, {'1': kept}).shrink(net)
    gone = [0, 3, 5, 6]
    whole[0].weight[gone], whole[0].bias[gone] = 0, 0
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(net(x), whole(x))
    with pytest.raises(FGCError, match='groups of different widths'):
        ChannelMap.of(whole, {'0': [0, 1, 2]}, {'1': [0, 1, 2]})


def test_a_whole_group_may_go():
    net = nn.Sequential(nn.Conv2d(4, 8, 1, groups=4), nn.Conv2d(8, 2, 1))
    kept = [2, 3, 6, 7]
    ChannelMap.of(net, {'0': kept}, {'0': [1, 3], '1': kept}).shrink(net)
    assert net(torch.randn(1, 2, 5, 5)).shape == (1, 2, 5, 5)
    assert net[0].groups == 2


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / 'channels.json'
    kept = [0, 1, 5]
    channel_map = ChannelMap.of(
        build(RESNET),
        {'layer1.0.conv1': kept, 'layer1.0.bn1': kept},
        {'layer1.0.conv2': kept},
    )
    file.write_text(channel_map.text())
    return file


def shrink(file, **options):
    return build(
        dict(type='fgc_mm.ChannelMapBackbone', channel_map=str(file),
             backbone=dict(RESNET, **options))
    )  # fmt: skip


def test_a_written_map_can_be_read(saved):
    again = ChannelMap.load(saved)
    assert again.text() == saved.read_text()
    assert shrink(saved).layer1[0].conv1.out_channels == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[:40], 'is not a channel map'),
        (lambda text: '[]', 'is not a channel map'),
        (lambda text: text.replace('fgc_mm', 'x'), 'is not a channel map'),
        (lambda text: text.replace('bn1', 'bn7'), 'has layer1.0.bn7'),
        (lambda text: text.replace('1, 5]', '1, 55]'), 'increasing indices'),
        (lambda text: text.replace('1, 5]', '5, 1]'), 'increasing indices'),
        (
            lambda text: text.replace('"outputs": [0, 1, 5]', '"outputs": []'),
            'without a channel',
        ),
    ],
)
def test_a_bad_map_is_one_sentence(saved, change, message):
    saved.write_text(change(saved.read_text()))
    with pytest.raises(FGCError, match=message) as error:
        shrink(saved)
    assert '\n' not in str(error.value)


def test_another_networks_map_is_refused(saved):
    with pytest.raises(FGCError, match=r'8 -> 8 channels .* 16 -> 16'):
        shrink(saved, base_channels=16, stem_channels=16)
    content = json.loads(saved.read_text())
    content['layers'] = {'relu': content['layers']['layer1.0.bn1']}
    saved.write_text(json.dumps(content))
    with pytest.raises(FGCError, match='no channels of its own'):
        shrink(saved)
    with pytest.raises(FGCError, match='not a file'):
        shrink('nowhere.json')
