"""What a gated backbone shows of the network that it wraps."""

import copy
import pickle

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from fgc_mm.models import GatedBackbone
from fgc_mm.reliability.whole_checkpoint import load_whole

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)


@pytest.fixture
def gated(tiny):
    return tiny.build().backbone


def test_a_public_attribute_is_the_networks(gated):
    assert gated.out_indices == gated.backbone.out_indices == (2,)
    assert gated.layer3 is gated.backbone.layer3
    assert 'layer3' not in dict(gated.named_children())
    assert not any(key.startswith('layer') for key in gated.state_dict())


def test_copies_have_them_too(gated):
    for copied in (copy.deepcopy(gated), pickle.loads(pickle.dumps(gated))):
        assert copied.layer3 is copied.backbone.layer3
        assert copied.layer3 is not gated.layer3


@pytest.mark.parametrize('name', ['no_such', '_version_of', '__wrapped__'])
def test_an_unknown_attribute_is_an_error_of_the_wrapper(gated, name):
    gated.backbone._version_of = 1
    with pytest.raises(AttributeError, match=f"'GatedBackbone'.*'{name}'"):
        getattr(gated, name)


def test_nothing_is_forwarded_before_there_is_a_network():
    empty = GatedBackbone.__new__(GatedBackbone)
    assert not hasattr(empty, 'out_indices')
    nn.Module.__init__(empty)
    assert not hasattr(empty, 'out_indices')


def test_layers_are_not_folded_below_the_gates(gated):
    gated.backbone.switch_to_deploy = lambda: None
    assert not hasattr(gated, 'switch_to_deploy')


def test_the_networks_layers_come_last_in_the_backbone(gated, tiny):
    paths = [path for path, _ in gated.named_modules(prefix='b')]
    assert paths[:2] == ['b', 'b.gates'] and len(set(paths)) == len(paths)
    assert paths[-1].startswith('b.backbone.layer3')
    model = tiny.build()
    order = [name for name, _ in model.named_parameters()]
    own = [key for key in model.state_dict() if key in set(order)]
    assert order == own  # which optimizers number


def test_it_is_captured_whole(gated):
    images = torch.rand(2, 3, 16, 16)
    gated.eval()
    exported = torch.export.export(gated, (images,)).module()
    assert torch.equal(exported(images)[0], gated(images)[0])


def test_printing_shows_a_table_of_sites(tiny):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    gated = GatedBackbone(net, dict(GATE, group=4))
    first, titles, row = str(gated).splitlines()
    assert first == repr(gated)
    assert first == 'GatedBackbone(Sequential, 1 sites, GroupedGate)'
    assert titles.split()[:4] == ['site', 'layer', 'channels', 'MACs']
    assert row.split() == ['0', 'Conv2d', '8', 'in', '2', 'groups', '100.0%',
                           '2']  # fmt: skip
    assert gated.describe() == str(gated)
    assert len(str(tiny.build())) < 1500


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_gates_of_earlier_checkpoints_load(tiny, prefix, capfd):
    source, target = tiny.build(seed=1), tiny.build(seed=2)
    if not prefix:
        source, target = source.backbone, target.backbone
    saved = {
        key.replace('-', '/') if '.gates.' in f'.{key}' else key: value
        for key, value in source.state_dict().items()
    }
    assert f'{prefix}gates.layer1/0/conv1.expand.bias' in saved
    for load in (
        lambda: target.load_state_dict(saved),
        lambda: load_state_dict(target, dict(saved), strict=False),
        lambda: load_whole(target, saved, 'x.pth'),
    ):
        for value in target.state_dict().values():
            value.zero_()
        load()
        for key, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[key], value), key
    assert 'missing' not in capfd.readouterr().out
