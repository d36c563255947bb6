"""MACs outside of a module's own forward, against other counts."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from fgc_mm.evaluation import DynamicMACs
from fgc_mm.functional import macs_per_image
from fgc_mm.functional.products import products_of
from fgc_mm.models import ChannelMap, GatedBackbone, build_macs_table
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.models.counting import gate_macs
from fgc_mm.registry import MODELS

from .tiny_networks import BACKBONES, FUNCTIONS, Functions, Holder

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)


def by_torch(network, size):
    """MACs by torch's own counter, gradients on and nothing fused."""
    network.eval()
    image = torch.zeros(1, 3, size, size)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), counter:
        network(image)
    return counter.get_total_flops() // 2


def table_of(backbone, size):
    return build_macs_table(Holder(backbone), (3, size, size))


@pytest.mark.parametrize('name', BACKBONES)
def test_a_plain_network_as_torch_counts_it(name):
    config, size = BACKBONES[name]
    network = MMPRETRAIN.build(config)
    table = table_of(network, size)
    assert table.dense == by_torch(network, size)
    attends = name not in ('ResNet', 'MobileNetV2')
    assert (table.outside_layers() > 0) == attends


def test_functions_by_hand():
    network = Functions()
    table = table_of(network, 4)
    rows = [(x.name, x.source, x.dense) for x in table.layers]
    assert rows == FUNCTIONS
    assert table.dense == by_torch(network, 4)
    outside = sum(n for _, source, n in FUNCTIONS if source != 'layer')
    assert table.outside_layers() == outside


def narrow(gated, masks):
    """The network with smaller linear layers instead of closed channels."""
    network = copy.deepcopy(gated.backbone)
    for site, mask in zip(gated.sites, masks, strict=True):
        kept = int(mask.sum())
        first = network.get_submodule(site.producer)
        (reader,) = site.consumers
        second = network.get_submodule(reader.path)
        for path, layer in (
            (site.producer, nn.Linear(first.in_features, kept)),
            (reader.path, nn.Linear(kept, second.out_features)),
        ):
            parent, name = path.rsplit('.', 1)
            network.get_submodule(parent)._modules[name] = layer
    return network


@pytest.fixture(scope='module')
def gated_vits():
    """Gated networks with attention, found once."""
    torch.manual_seed(0)
    return {
        name: GatedBackbone(MMPRETRAIN.build(BACKBONES[name][0]), GATE).eval()
        for name in ('BEiT', 'SwinV2')
    }


@pytest.mark.parametrize('name', ['BEiT', 'SwinV2'])
def test_half_closed_costs_what_the_narrow_network_costs(gated_vits, name):
    gated, size = gated_vits[name], BACKBONES[name][1]
    table = table_of(gated, size)
    masks = [(torch.arange(s.channels) % 2 == 0)[None] for s in gated.sites]
    left = by_torch(narrow(gated, masks), size)
    assert macs_per_image(table, masks).item() == left + table.gates
    assert table.dense == by_torch(gated.backbone, size)


def test_a_site_has_its_share_of_all_products(gated_vits):
    gated, size = gated_vits['BEiT'], BACKBONES['BEiT'][1]
    table = table_of(gated, size)
    shares = [site.macs_share for site in gated.sites]
    want = [table.site_macs(i) / table.dense for i in range(len(shares))]
    assert shares == pytest.approx(want)


def test_products_in_a_gates_own_code_are_the_gates(tiny):
    model = tiny.build()
    before = model.macs_table((3, 8, 8))
    (key, gate), *_ = model.backbone.gates.items()
    gate.mix = nn.Parameter(torch.eye(gate.squeeze.in_features))
    own = gate.forward
    gate.forward = lambda x: own(torch.einsum('nchw,dc->ndhw', x, gate.mix))
    after = build_macs_table(model, (3, 8, 8))
    more = 8 * 8 * len(gate.mix) ** 2
    assert after.gates == before.gates + more and after.dense == before.dense
    site = key.replace('-', '.')
    assert gate_macs(after, site) == gate_macs(before, site) + more


class ByHand(nn.Linear):
    """A layer that multiplies a second time by itself."""

    def forward(self, x):
        return super().forward(x) + F.linear(x, self.weight)


class Pruned(nn.Sequential):
    """Weights of every kind that are computed in every call."""

    def __init__(self):
        old = nn.utils.weight_norm(nn.Linear(4, 4))
        mask = prune.l1_unstructured(nn.Linear(4, 4), 'weight', 0.5)
        spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        super().__init__(old, mask, spectral, ByHand(4, 4))


@pytest.mark.filterwarnings('ignore:.*weight_norm.*')
def test_layers_whose_weight_is_no_parameter():
    table = build_macs_table(Pruned(), (4,))
    rows = [(x.name, x.source, x.dense) for x in table.layers]
    assert rows == [
        ('0', 'layer', 16),
        ('1', 'layer', 16),
        ('2', 'layer', 16),
        ('3', 'layer', 16),
        ('3', 'parameter', 16),
    ]


def test_half_precision_changes_nothing(tiny):
    model = tiny.build()
    want = build_macs_table(model, (3, 8, 8))
    with torch.autocast('cpu', torch.bfloat16), torch.inference_mode():
        assert build_macs_table(model, (3, 8, 8)) == want


class Meanwhile(nn.Module):
    """Another thread runs a layer of the same network in between."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        other = threading.Thread(target=self.second, args=(x,))
        other.start()
        other.join()
        return self.second(self.first(x))


def test_another_threads_products_are_not_counted():
    table = build_macs_table(Meanwhile(), (4,))
    assert [x.name for x in table.layers] == ['first', 'second']


SMALL = dict(type='fgc_mm.CifarResNet', base_channels=8)
KEPT = tuple(range(3))


def whole_and_compact(tiny):
    """A gated classifier, and it without channels of its first block."""
    whole = tiny.cfg(backbone=SMALL, channels=32)
    channel_map = ChannelMap.of(
        MMPRETRAIN.build(SMALL),
        {'layer1.0.conv1': KEPT, 'layer1.0.bn1': KEPT},
        {'layer1.0.conv2': KEPT},
        {'layer1.0.conv1': SiteChannels(KEPT, KEPT)},
    )
    small = copy.deepcopy(whole)
    small['backbone'].update(
        type='fgc_mm.CompactBackbone', channel_map=channel_map
    )
    return MODELS.build(whole), MODELS.build(small).eval()


def test_after_compaction_the_base_is_the_whole_network(tiny):
    whole, small = whole_and_compact(tiny)
    before, after = (x.macs_table((3, 8, 8)) for x in (whole, small))
    for counting in ('honest', 'fgc-pr', 'ftwt'):
        assert after.base(counting) == before.base(counting)
        assert before.base(counting) == before.full(counting)
    gone = 2 * 64 * 9 * 8 * 5  # positions, kernel, channels that stay, gone
    assert after.dense == before.dense - gone == after.full()
    assert before.base('fgc-pr') - after.full('fgc-pr') == gone


def test_the_metrics_of_a_compact_model_are_of_the_whole_base(tiny):
    _, small = whole_and_compact(tiny)
    metric, images = DynamicMACs(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        samples = small.predict(images, tiny.samples([0, 1]))
    metric.process({}, [sample.to_dict() for sample in samples])
    found = metric.compute_metrics(metric.results)
    table = small.macs_table((3, 8, 8))
    assert found['dense'] == table.base() > table.dense
    want = 100 * (1 - found['mean'] / table.base())
    assert found['pruning_ratio'] == pytest.approx(want)


def test_a_network_shrunk_twice_is_measured_against_the_first():
    network = MMPRETRAIN.build(SMALL)
    before = table_of(network, 8)
    for kept in (range(5), range(2)):
        ChannelMap.of(
            network,
            {'layer1.0.conv1': kept, 'layer1.0.bn1': kept},
            {'layer1.0.conv2': kept},
        ).shrink(network)
    after = table_of(network, 8)
    assert after.base() == before.dense > after.dense
    assert before.dense - after.dense == 2 * 64 * 9 * 8 * 6


class Deformable(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.offset = nn.Conv2d(8, 18, 3, padding=1)
        self.deform = DeformConv2d(8, 6, 3, padding=1, groups=groups)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(self.deform(x, self.offset(x)).relu())


@pytest.mark.parametrize('groups', [1, 2])
def test_a_deformable_conv_by_hand(groups):
    wanted = (3 * 8 + 8 * 18 * 9 + 8 * 6 * 9 // groups + 6 * 4) * 16**2
    assert table_of(Deformable(groups), 16).dense == wanted
    args = torch.rand(5, 8, 16, 16), torch.rand(6, 8 // groups, 3, 3)
    (product,) = products_of(
        torch.ops.torchvision.deform_conv2d.default,
        args,
        torch.rand(5, 6, 16, 16),
    )
    assert product.macs == 5 * (8 * 6 * 9 // groups) * 16**2
