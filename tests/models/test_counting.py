"""The MACs table against the published numbers and smaller networks."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fgc_mm.functional import (
    LayerMACs,
    MACsTable,
    expected_macs,
    macs_per_image,
)
from fgc_mm.models import build_macs_table
from fgc_mm.models.counting import gate_macs
from fgc_mm.registry import MODELS

IMAGE = (3, 32, 32)


def flops_counter(network, *images):
    """MACs of one image by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()
        network(*images)
    return counter.get_total_flops() // 2


def published(depth, tiny):
    backbone = dict(type='fgc_mm.CifarResNet', depth=depth)
    cfg = tiny.cfg(backbone=backbone, channels=64)
    cfg['backbone']['gate'] = dict(type='fgc_mm.BinaryConcreteGate')
    return build_macs_table(MODELS.build(cfg), IMAGE)


@pytest.mark.parametrize(
    ('depth', 'base', 'gates'),
    [
        (20, 40_550_400, 9_984),
        (32, 68_861_952, 17_152),
        (56, 125_485_056, 31_488),
    ],
)
def test_the_constants_of_the_published_code(depth, base, gates, tiny):
    table = published(depth, tiny)
    assert table.base('fgc-pr') == base and table.gates == gates
    assert table.dense == base + 64 * 10 == table.base()
    all_open = [torch.ones(1, c) for c in table.channels]
    assert macs_per_image(table, all_open).item() == table.dense + gates
    assert expected_macs(table, 1.0, 'fgc-pr') == base + gates


@pytest.fixture(scope='module')
def resnet18(tiny):
    backbone = dict(type='ResNet_CIFAR', depth=18)
    return tiny.build(backbone=backbone, channels=512)


def test_resnet18_has_the_published_macs(resnet18):
    table = build_macs_table(resnet18, IMAGE)
    assert table.of('backbone') == 555_417_600
    assert table.of('head') == 5120 and len(table.sites) == 8
    plain = resnet18.backbone.backbone
    assert flops_counter(plain, torch.zeros(1, *IMAGE)) == 555_417_600


@pytest.mark.parametrize('size', [32, 48])
def test_every_kind_of_network_against_torchs_counter(gated_backbone, size):
    model = nn.Module()
    model.backbone = gated_backbone
    model.forward = gated_backbone.forward
    image = (3, size, size)
    table = build_macs_table(model, image)
    dense = flops_counter(gated_backbone.backbone, torch.zeros(1, *image))
    both = flops_counter(gated_backbone, torch.zeros(1, *image))
    assert table.dense == dense and table.gates == both - dense
    site_macs = sum(table.site_macs(i) for i in range(len(table.sites)))
    assert site_macs > 0
    gates = [gate_macs(table, site) for site in table.sites]
    assert sum(gates) == table.gates and min(gates) > 0


def cut(conv, inputs=None, outputs=None):
    """A smaller conv, of the open channels; as many in every group."""
    groups = conv.groups
    weight = conv.weight.detach().unflatten(0, (groups, -1))
    every = torch.ones(conv.in_channels + conv.out_channels) > 0
    inputs = every[: conv.in_channels] if inputs is None else inputs
    outputs = every[: conv.out_channels] if outputs is None else outputs
    kept = zip(weight, inputs.view(groups, -1), outputs.view(groups, -1))
    weight = torch.cat([w[outs][:, ins] for w, ins, outs in kept])
    small = nn.Conv2d(
        int(inputs.sum()), len(weight), conv.kernel_size, conv.stride,
        conv.padding, conv.dilation, groups, bias=False,
    )  # fmt: skip
    small.weight.data = weight
    return small


def cut_norm(norm, channels):
    small = nn.BatchNorm2d(int(channels.sum()), norm.eps)
    state = {
        key: value[channels] if value.ndim else value
        for key, value in norm.state_dict().items()
    }
    small.load_state_dict(state)
    return small


def shrink(backbone, masks):
    """The network that one image's masks leave, physically."""
    network = copy.deepcopy(backbone.backbone)
    for site, mask in zip(backbone.sites, masks, strict=True):
        path, name = site.producer.rsplit('.', 1)
        block = network.get_submodule(path)
        follower = site.consumers[0].path.rsplit('.', 1)[1]
        conv, after = getattr(block, name), getattr(block, follower)
        norm = name.replace('conv', 'bn')
        setattr(block, name, cut(conv, outputs=mask))
        setattr(block, norm, cut_norm(getattr(block, norm), mask))
        setattr(block, follower, cut(after, inputs=mask))
    for module in network.modules():  # copies of our hooks
        module._forward_pre_hooks.clear()
    network.eval()  # mmpretrain's own returns nothing
    return network


@pytest.mark.parametrize('seed', [0, 1])
def test_the_smaller_network_has_the_same_macs_and_outputs(
    gated_backbone, set_gates, random_masks, images, seed
):
    model = copy.deepcopy(gated_backbone)
    masks = random_masks(model.sites, seed)
    set_gates(model, masks)
    small = shrink(model, masks)
    with torch.no_grad():
        torch.testing.assert_close(
            small(images)[0], model(images)[0], rtol=1e-3, atol=1e-3
        )
    whole = nn.Module()
    whole.backbone, whole.forward = model, model.forward
    table = build_macs_table(whole, IMAGE)
    counted = macs_per_image(table, [m.float()[None] for m in masks])
    left = flops_counter(small, torch.zeros(1, *IMAGE))
    assert counted.item() == left + table.gates


def test_counting_leaves_the_model_as_it_was(tiny):
    model = tiny.build().train()
    model.backbone.gates.eval()
    before = copy.deepcopy(model.state_dict())
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    build_macs_table(model, IMAGE)
    assert model.training and not model.backbone.gates.training
    assert hooks == sum(len(m._forward_hooks) for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_count_that_fails_leaves_no_hook(tiny):
    model = tiny.build().train()
    with pytest.raises(RuntimeError):
        build_macs_table(model, (5, 32, 32))
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_a_dense_classifier_has_a_table_without_sites():
    model = MMPRETRAIN.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='fgc_mm.CifarResNet'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
        )
    )
    table = build_macs_table(model, IMAGE)
    assert table.sites == () and table.gates == 0
    assert table.dense == 40_550_400 + 640


def test_some_sites_only(tiny):
    model = tiny.build(sites=['layer2.*'])
    table = build_macs_table(model, IMAGE)
    assert table.channels == (8, 8, 8)
    masked = [x for x in table.layers if x.out_sites]
    assert [x.name for x in masked] == [
        f'backbone.backbone.layer2.{i}.conv1' for i in range(3)
    ]
    masks = [x.in_sites for x in table.layers if x.in_sites]
    assert masks == [((i, None),) for i in range(3)]


def test_macs_of_a_gate_by_the_name_of_its_site():
    layers = [
        LayerMACs(f'backbone.gates.{name}', 'gate', macs, 1, 1)
        for name, macs in (
            ('a-b.squeeze', 5), ('a-b.expand', 7), ('a-bc', 9), ('values-', 3)
        )
    ]  # fmt: skip
    sites = 'a.b', 'a.bc', 'values'
    table = MACsTable(tuple(layers), sites, (4, 4, 4))
    assert [gate_macs(table, x) for x in (*sites, 'a')] == [12, 9, 3, 0]
