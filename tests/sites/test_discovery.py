"""Sites of mmpretrain's backbones."""

import pytest
from mmpretrain.models import backbones
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models import CifarResNet
from fgc_mm.sites import SiteLayer, find_sites

SHORT = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.25] * 4)
REPEATED = dict(SHORT, group_layer_map=None, se_cfg=None)
BRANCHES = dict(SHORT, num_conv_branches=[4] * 4, num_se_blocks=[0] * 4)


@pytest.fixture(scope='module')
def cifar():
    return CifarResNet(20, base_channels=4)


def test_a_basic_block_has_one_site(cifar):
    sites = find_sites(cifar)
    names = [f'layer{i}.{j}.conv1' for i in (1, 2, 3) for j in range(3)]
    assert [site.name for site in sites] == names
    assert [site.channels for site in sites] == [4] * 3 + [8] * 3 + [16] * 3
    assert [site.in_channels for site in sites] == (
        [4] * 3 + [4, 8, 8] + [8, 16, 16]
    )
    assert all(
        site.producer == site.name
        and site.consumers == (SiteLayer(site.name.replace('conv1', 'conv2')),)
        and site.outputs == (SiteLayer(site.name),)
        for site in sites
    )


def test_a_key_has_no_dots_and_is_unique(cifar):
    keys = [site.key for site in find_sites(cifar)]
    assert len(set(keys)) == len(keys) == 9
    nn.ModuleDict({key: nn.Identity() for key in keys})


def paths(site):
    return [consumer.path for consumer in site.consumers]


def test_a_bottleneck_has_two_sites_and_its_stem_one():
    sites = find_sites(backbones.ResNet(50, base_channels=8))
    assert len(sites) == 33
    stem, first, second = sites[:3]
    assert (stem.name, paths(stem)) == (
        'conv1', ['layer1.0.conv1', 'layer1.0.downsample.0']
    )  # fmt: skip
    assert (first.name, paths(first)) == (
        'layer1.0.conv1', ['layer1.0.conv2']
    )  # fmt: skip
    assert (second.name, paths(second)) == (
        'layer1.0.conv2', ['layer1.0.conv3']
    )  # fmt: skip


TWO = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))


@pytest.mark.parametrize(
    ('kind', 'options', 'count'),
    [
        ('ResNet', dict(depth=18), 8),
        ('ResNeXt', dict(depth=50, groups=4, width_per_group=4, **TWO), 15),
        ('SEResNet', dict(depth=50, **TWO), 22),
        ('RegNet', dict(arch='regnetx_400mf'), 45),
        ('MobileNetV2', dict(), 19),
        ('ShuffleNetV1', dict(), 16),
        ('ShuffleNetV2', dict(), 36),
        ('ResNeSt', dict(depth=50, **TWO), 24),
        ('InceptionV3', dict(), 94),
        ('VisionTransformer', dict(arch='deit-t', img_size=64), 12),
        ('ConvNeXt', dict(arch='atto'), 12),
    ],
)
def test_number_of_sites(kind, options, count):
    assert len(find_sites(getattr(backbones, kind)(**options))) == count


@pytest.mark.parametrize(
    ('kind', 'options'),
    [('RepVGG', dict(arch=REPEATED)), ('MobileOne', dict(arch=BRANCHES))],
)
def test_blocks_of_summed_branches_have_no_site(kind, options):
    network = getattr(backbones, kind)(**options)
    rule = f'^{kind} has no site, since every conv'
    with pytest.raises(FGCError, match=rule):
        find_sites(network)
    sites = find_sites(network, dict(type='auto', residual=True))
    assert sites and all(site.branch_end for site in sites)
    assert find_sites(getattr(backbones, kind)(**options, deploy=True))


def test_a_network_of_one_layer_is_refused():
    with pytest.raises(FGCError, match=r'^Sequential has no layer'):
        find_sites(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_patterns_choose_in_the_order_of_the_network(cifar):
    sites = find_sites(cifar, ['layer3.*', 'layer1.[02].conv1'])
    assert [site.name for site in sites] == [
        'layer1.0.conv1',
        'layer1.2.conv1',
        'layer3.0.conv1',
        'layer3.1.conv1',
        'layer3.2.conv1',
    ]


def test_a_pattern_without_a_match_lists_all_sites(cifar):
    with pytest.raises(FGCError) as caught:
        find_sites(cifar, ['layer1.*', 'layer4.*'])
    text = str(caught.value)
    assert "site pattern 'layer4.*' matches no gate site" in text
    assert 'layer1.0.conv1, layer1.1.conv1' in text and 'layer3.2' in text


@pytest.mark.parametrize('sites', ['layer3.*', [], ()])
def test_other_types_than_a_list_of_patterns_are_refused(cifar, sites):
    with pytest.raises(FGCError, match=r'not a list of patterns; write \['):
        find_sites(cifar, sites)
