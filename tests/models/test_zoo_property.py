"""Exactness and MACs of gated mmpretrain backbones."""

import copy
from functools import cache

import pytest
import torch
import torch_pruning as tp
from mmpretrain.models.backbones import VGG
from mmpretrain.registry import MODELS
from torch import nn

from fgc_mm.functional import macs_per_image
from fgc_mm.models import GatedBackbone, build_macs_table

GATE = dict(type='fgc_mm.BinaryConcreteGate')
# Every kind of block occurs, few times.
TWO_STAGES = dict(
    num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
)
DENSE_BLOCKS = dict(growth_rate=16, depths=[2, 3, 2, 2], init_channels=32)
FEW_BLOCKS = dict(
    w0=24, wa=40.0, wm=2.54, group_w=16, depth=8, bot_mul=1.0
)  # fmt: skip
WIDTHS = [16, 32, 64, 128]
SHORT = dict(
    embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256
)
BRANCHES = dict(
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.25] * 4,
    num_conv_branches=[4] * 4,
    num_se_blocks=[0] * 4,
)
REPEATED = dict(
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.25] * 4,
    group_layer_map=None,
    se_cfg=None,
)


@MODELS.register_module(force=True)
class NarrowVGG(VGG):
    """mmpretrain's, whose classifier alone has 120 million parameters."""

    def __init__(self, num_classes, **options):
        super().__init__(out_indices=(5,), **options)
        self.num_classes = num_classes
        self.classifier = nn.Sequential(
            nn.Linear(512 * 2 * 2, 64),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(64, 64),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(64, num_classes),
        )


BACKBONES = [
    dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, **TWO_STAGES),
    dict(type='SEResNet', depth=50, base_channels=16, **TWO_STAGES),
    dict(type='NarrowVGG', depth=11, norm_cfg=dict(type='BN'), num_classes=5),
    dict(type='MobileNetV2', widen_factor=0.25),
    dict(type='MobileNetV3', arch='small_050'),
    dict(type='ShuffleNetV1', widen_factor=0.5),
    dict(type='ShuffleNetV2', widen_factor=0.5),
    dict(type='ResNeSt', depth=50, **TWO_STAGES),
    dict(type='DenseNet', arch=DENSE_BLOCKS, drop_rate=0.0),
    dict(type='RegNet', arch=FEW_BLOCKS),
    dict(type='ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=WIDTHS)),
    dict(type='VisionTransformer', arch=SHORT, img_size=64, patch_size=16),
]
RESIDUAL = dict(type='auto', residual=True)
SUMS = [
    c
    for c in BACKBONES
    if c['type'] in ('ResNet', 'SEResNet', 'MobileNetV3', 'VisionTransformer')
] + [
    dict(type='RepVGG', arch=REPEATED),
    dict(type='MobileOne', arch=BRANCHES),
]
BEYOND_TORCH_PRUNING = (
    'ResNeXt', 'RegNet', 'ResNeSt', 'ShuffleNetV1', 'ShuffleNetV2'
)  # fmt: skip


SIZE = 64


CASES = [(c, 'auto') for c in BACKBONES] + [(c, RESIDUAL) for c in SUMS]


@cache  # the site search takes seconds
def build(case):
    config, sites = CASES[case]
    torch.manual_seed(0)
    return GatedBackbone(config, GATE, sites).eval()


@pytest.fixture(
    params=range(len(CASES)),
    ids=lambda i: '-'.join(
        (CASES[i][0]['type'], 'auto' if CASES[i][1] == 'auto' else 'residual')
    ),
)
def gated(request):
    network = copy.deepcopy(build(request.param))
    for module in network.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    images = torch.randn(
        2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)
    )
    return network, images


def flat(outputs):
    return (
        [outputs]
        if torch.is_tensor(outputs)
        else [tensor for output in outputs for tensor in flat(output)]
    )


@torch.no_grad()
def same(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(flat(first), flat(second), strict=True)
    )


@torch.no_grad()
def test_all_open_is_the_plain_backbone_bit_for_bit(gated):
    network, images = gated
    for gate in network.gates.values():
        gate.expand.weight.zero_()
        gate.expand.bias.fill_(1)
    assert same(network(images), network.backbone(images))


@torch.no_grad()
def test_closed_channels_do_not_change_the_output(gated):
    network, images = gated
    outputs, records = network.forward_gated(images[:1])
    assert 0.2 < torch.cat([r.mask[0] for r in records]).mean() < 0.8
    for record in records:
        for output in record.site.outputs:
            fill_with_garbage(network.backbone, output, record.mask[0] == 0)
    again, after = network.forward_gated(images[:1])
    pairs = zip(records, after, strict=True)
    assert all(torch.equal(a.mask, b.mask) for a, b in pairs)
    assert same(outputs, again)


def fill_with_garbage(backbone, output, closed):
    layer = backbone.get_submodule(output.path)
    for row, channel in enumerate(output.positions or range(len(closed))):
        if channel >= 0 and closed[channel]:
            layer.weight[row] = 100 * torch.randn_like(layer.weight[row])
            if layer.bias is not None:
                layer.bias[row] = -7


def random_masks(sites):
    generator = torch.Generator().manual_seed(2)
    masks = [
        (torch.rand(1, s.channels, generator=generator) > 0.5) for s in sites
    ]
    for mask in masks:
        mask[0, 0] = True  # torch-pruning cannot remove a whole layer
    return masks


def remove(network, images, sites, masks):
    """What torch-pruning leaves of a network without the closed channels."""
    graph = tp.DependencyGraph().build_dependency(network, images)
    for site, mask in zip(sites, masks, strict=True):
        layer = network.get_submodule(site.producer)
        closed = (~mask[0]).nonzero().flatten().tolist()
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        graph.get_pruning_group(layer, prune, closed).prune()
    return network


@pytest.mark.parametrize(
    'case',
    # without grouped convs, of which it removes whole groups, and without
    # channels that it does not follow
    [
        i
        for i, config in enumerate(BACKBONES)
        if config['type'] not in BEYOND_TORCH_PRUNING
    ],
    ids=lambda i: BACKBONES[i]['type'],
)
def test_macs_are_those_of_the_network_without_the_closed_channels(case):
    network = copy.deepcopy(build(case))
    images = torch.zeros(1, 3, SIZE, SIZE)
    plain = copy.deepcopy(network.backbone)
    for module in plain.modules():
        module._forward_pre_hooks.clear()
    plain.eval()
    table = build_macs_table(Holder(network), tuple(images.shape[1:]))
    masks = random_masks(network.sites)
    small = remove(plain, images, network.sites, masks)
    left = build_macs_table(Holder(small), tuple(images.shape[1:])).dense
    assert macs_per_image(table, masks).item() == left + table.gates


class Holder(nn.Module):
    """A classifier without a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)


@torch.no_grad()
def test_a_record_has_the_means_of_the_consumers_inputs(gated):
    network, images = gated
    for gate in network.gates.values():
        gate.expand.weight.zero_()
        gate.expand.bias.fill_(1)
    read = {}
    for site in network.sites:
        for consumer in site.consumers:
            network.backbone.get_submodule(
                consumer.path
            ).register_forward_pre_hook(
                lambda m, x, p=consumer.path: read.update({p: x[0].clone()})
            )
    _, records = network.forward_gated(images, keep_activation=True)
    for record in records:
        maps = record.activation
        assert maps.shape[:2] == (len(images), record.site.channels)
        means = maps.flatten(2).mean(2) if maps.dim() > 2 else maps
        if record.site.branch_end is None:
            want = naive_means(network.backbone, record.site, read)
            torch.testing.assert_close(means, want, rtol=1e-4, atol=1e-5)


def naive_means(backbone, site, read):
    """Channel by channel, from the first consumer that has it (or all)."""
    consumers = [
        (c, c.positions or range(site.channels)) for c in site.consumers
    ]
    whole = [c for c in consumers if set(range(site.channels)) <= {*c[1]}]
    means = []
    for channel in range(site.channels):
        consumer, positions = next(
            c for c in whole or consumers if channel in c[1]
        )
        x = read[consumer.path]
        if isinstance(backbone.get_submodule(consumer.path), nn.Linear):
            x = x.movedim(-1, 1)
        places = [i for i, c in enumerate(positions) if c == channel]
        means.append(x[:, places].flatten(1).mean(1))
    return torch.stack(means, 1)


@torch.no_grad()
def test_a_closed_gate_changes_the_output(gated):
    network, images = gated
    assert not same(network(images), network.backbone(images))
