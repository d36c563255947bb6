"""Depthwise convs and last convs as sites of their own; chosen sites."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from fgc_mm.deploy import compact, firing_statistics, gathered, to_dynamic
from fgc_mm.errors import FGCError
from fgc_mm.functional import expected_macs
from fgc_mm.models import build_macs_table
from fgc_mm.registry import MODELS
from fgc_mm.sites import SiteLayer, find_sites

EVERY = dict(type='auto', every_conv=True)


class Separable(nn.Module):
    """conv, depthwise conv, pointwise conv; perhaps a shortcut to the last."""

    def __init__(self, shortcut=False, depth=1):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.dws = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(6, 6, 3, padding=1, groups=6),
                    nn.BatchNorm2d(6),
                    nn.ReLU(),
                )
                for _ in range(depth)
            )
        )
        self.b = nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.c = nn.Conv2d(6, 4, 1) if shortcut else None

    def forward(self, x):
        first = self.a(x).relu()
        out = self.norm(self.b(self.dws(first))).relu()
        return (out if self.c is None else out + self.c(first),)


def found(network, sites=None):
    torch.manual_seed(0)
    return {s.name: s for s in find_sites(network, sites or EVERY)}


@pytest.mark.parametrize('depth', [1, 2])
def test_every_conv_is_a_site_of_its_own(depth):
    sites = found(Separable(depth=depth))
    chain = ['a', *(f'dws.{i}.0' for i in range(depth)), 'b']
    assert list(sites) == chain
    for name, reader in pairwise(chain):
        assert sites[name].outputs == (SiteLayer(name),)
        assert sites[name].consumers == (SiteLayer(reader),)
    last = sites['b']
    assert last.consumers == () and last.branch_end == 'norm'
    assert [s.in_channels for s in sites.values()] == [3, *[6] * (depth + 1)]
    assert [s.channels for s in sites.values()] == [*[6] * (depth + 1), 4]


def test_without_it_nothing_is_split():
    assert list(found(Separable(), 'auto')) == ['a']
    assert list(found(Separable(), dict(type='auto', residual=True))) == ['a']


def test_a_depthwise_conv_with_a_bypass_is_not_split():
    sites = found(Separable(shortcut=True))
    assert 'dws.0.0' not in sites
    assert sites['a'].outputs == (SiteLayer('a'), SiteLayer('dws.0.0'))


def test_patterns_choose_among_all_kinds():
    network = Separable()
    assert list(found(network, dict(EVERY, patterns=['dws*', 'b']))) == [
        'dws.0.0', 'b',
    ]  # fmt: skip
    with pytest.raises(FGCError, match=r"'x\*' matches no gate site"):
        found(network, dict(EVERY, patterns=['x*']))
    with pytest.raises(
        FGCError, match=r"'a', which is not a list of patterns"
    ):
        found(network, dict(EVERY, patterns='a'))


def classifier(sites=EVERY):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=dict(
                type='fgc_mm.GatedBackbone',
                backbone=dict(
                    type='fgc_mm.MobileNetV1', width=0.125, small_images=True
                ),
                gate=dict(type='fgc_mm.FTWTGate'),
                sites=sites,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=128),
        )
    )
    for gate in model.backbone.gates.values():
        nn.init.normal_(gate.predict.weight, std=20)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.fixture(scope='module')
def model():
    return classifier()


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(7)
    return torch.randn(3, 3, 32, 32, generator=generator)


@torch.no_grad()
def test_masks_act_like_multiplications_in_the_dense_network(model, images):
    outputs, records = model.backbone.forward_gated(images)
    masks = {r.site.name: r.mask[:, :, None, None] for r in records}
    assert all(0 < m.mean() < 1 for m in list(masks.values())[1:9])
    network = model.backbone.backbone
    x = network.stem(images) * masks['stem.0']
    for number, (depthwise, pointwise) in enumerate(network.pairs):
        x = depthwise(x) * masks[f'pairs.{number}.0.0']
        x = pointwise(x) * masks[f'pairs.{number}.1.0']
    assert torch.equal(x, outputs[0])


@torch.no_grad()
def test_macs_count_depthwise_channels_open_in_both_masks(model, images):
    samples = model.predict(images)
    _, records = model.backbone.forward_gated(images)
    masks = {r.site.name: (r.mask != 0).double() for r in records}
    maps = dict(zip(['stem', *range(13)], [32, 32, 16, 16, 8, 8, *[4] * 6, 2,
                                           2], strict=True))  # fmt: skip
    before = masks['stem.0']
    total = 9 * 3 * maps['stem'] ** 2 * before.sum(1)
    for pair in range(13):
        own = masks[f'pairs.{pair}.0.0']
        after = masks[f'pairs.{pair}.1.0']
        area = maps[pair] ** 2
        total = total + 9 * area * (before * own).sum(1)
        total = total + area * own.sum(1) * after.sum(1)
        before = after
    table = samples[0].macs_table
    total = total + table.of('gate', 'head')
    got = torch.stack([sample.macs for sample in samples])
    torch.testing.assert_close(got, total)


def test_expected_macs_take_both_decisions(model):
    table = build_macs_table(model, (3, 32, 32))
    (layer,) = [x for x in table.layers if x.name.endswith('pairs.4.0.0')]
    rest = sum(x.dense for x in table.layers if x.role in ('gate', 'head'))
    convs = [x for x in table.layers if x.role == 'backbone']
    assert layer in convs
    # the stem reads the image; all others have fewer inputs and outputs
    want = rest + 0.5 * convs[0].dense + 0.25 * sum(
        x.dense for x in convs[1:]
    )  # fmt: skip
    assert expected_macs(table, 0.5) == pytest.approx(want)


@torch.no_grad()
def test_the_dynamic_model_equals_the_masked_model(model, images):
    dynamic = to_dynamic(model, images)
    torch.testing.assert_close(
        dynamic(images), model(images), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_compaction_and_gathering_keep_masking_them(model, images):
    backbone = dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(
            type='fgc_mm.MobileNetV1', width=0.125, small_images=True
        ),
        gate=dict(type='fgc_mm.FTWTGate'),
        sites=EVERY,
    )
    firing = firing_statistics(model, [images])
    assert any(stats.never().any() for stats in firing[1:-1])
    done = compact(model, firing, backbone, images)
    wanted = model.backbone(images)
    for got, want in zip(done.backbone(images), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    why = done.refused['pairs.3.0.0']
    assert why == 'pairs.3.0.0 is a depthwise conv with a gate of its own'
    copied, plan = gathered(model, images[:1])
    assert set(plan.values()) == {'masked'}
    torch.testing.assert_close(copied(images[:1]), model(images[:1]))
