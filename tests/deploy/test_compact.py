"""Compaction removes what is constant, and changes nothing else."""

import copy
import functools
from math import isnan

import pytest
import torch
import torch_pruning as tp
from mmengine.config import Config
from torch import nn

from fgc_mm.deploy import compact, firing_statistics, to_dynamic
from fgc_mm.deploy.compaction.equivalence import fixed_decisions
from fgc_mm.deploy.compaction.small_model import small_config
from fgc_mm.deploy.comparing import largest_gap
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.deploy.firing import SiteFiring
from fgc_mm.errors import FGCError
from fgc_mm.gates import BinaryConcreteGate, FBSGate, PartialGate
from fgc_mm.models import ChannelMap, CompactBackbone, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.registry import MODELS

RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
# the kinds of blocks matter, not how often they come
TWO_STAGES = dict(
    num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
)
BACKBONES = [
    RESNET,
    dict(type='SEResNet', depth=50, base_channels=16, **TWO_STAGES),
    dict(type='MobileNetV2', widen_factor=0.25),
    dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, **TWO_STAGES),
    dict(type='ShuffleNetV1', widen_factor=0.5),
]
RESIDUAL = dict(type='auto', residual=True)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope='module')
def compacted(gated, pictures):
    """Returns a masked backbone, the compacted one, and images.

    Made once per config; no test changes them.
    """

    @functools.cache
    def make(index, sites):
        network, cfg = gated(BACKBONES[index], RESIDUAL if sites else 'auto')
        images = pictures(64)
        firing = firing_statistics(network, [images])
        return network, compact(network, firing, cfg, images), images

    return make


@pytest.fixture(
    params=[(i, '') for i in range(len(BACKBONES))] + [(0, 'residual')],
    ids=lambda p: f'{BACKBONES[p[0]]["type"]}-{p[1] or "auto"}',
)
def pair(request, compacted):
    return compacted(*request.param)


@torch.no_grad()
def test_features_are_the_masked_ones(pair):
    network, done, images = pair
    assert done.difference < 1e-4
    # where all removed gates agree: on the images of the calibration
    assert largest_gap(network(images), done.backbone(images)) < 1e-4
    # and, with fixed decisions, on any other
    others = images.flip(3) * 0.7 + 0.3
    with fixed_decisions(network, done.channel_map):
        wanted = network(others)
    assert largest_gap(wanted, done.backbone(others)) < 1e-4


def test_constant_channels_are_removed(pair):
    network, done, images = pair
    firing = firing_statistics(network, [images])
    kept = {site.name: site for site in done.backbone.sites}
    for stats in firing:
        entry = done.channel_map.sites[stats.site]
        never = stats.never().nonzero().flatten().tolist()
        gone = sorted(set(range(len(stats.rate))) - set(entry.kept))
        assert set(gone) <= set(never)
        assert entry.closed == tuple(c for c in never if c not in gone)
        if stats.site not in done.refused:
            assert len(entry.kept) == len(stats.rate) - len(gone)
            grouped = network.backbone.get_submodule(stats.site)
            if type(network.backbone).__name__ == 'ResNet':
                assert gone == never and grouped.groups == 1
        assert not {*entry.gated} & {*stats.always().nonzero().flatten()
                                     .tolist()}  # fmt: skip
        assert (stats.site in kept) == bool(entry.gated or entry.closed)
    if set(done.refused) != set(kept):
        assert parameters(done.backbone) < parameters(network)


# apart from grouped convs, of which it removes whole groups
@pytest.mark.parametrize('index', range(3), ids=lambda i: BACKBONES[i]['type'])
def test_torch_pruning_makes_the_same_network(index, compacted):
    network, done, images = compacted(index, '')
    plain = copy.deepcopy(network.backbone)
    for module in plain.modules():
        module._forward_pre_hooks.clear()
    plain.eval()
    graph = tp.DependencyGraph().build_dependency(plain, images[:1])
    for site in network.sites:
        layer = plain.get_submodule(site.producer)
        kept = done.channel_map.sites[site.name].kept
        gone = [c for c in range(site.channels) if c not in kept]
        if gone:
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune, gone).prune()
    small = getattr(done.backbone, 'backbone', done.backbone)
    own, other = small.state_dict(), plain.state_dict()
    assert own.keys() == other.keys()
    for key, value in own.items():
        assert torch.equal(value, other[key]), key


def constant(network, share):
    """Statistics that call some channels always open, all others never."""
    result = []
    for site in network.sites:
        rate = (torch.arange(site.channels) < share * site.channels).double()
        result.append(SiteFiring(site.name, rate, rate, 5))
    return result


@torch.no_grad()
def test_without_a_decision_there_is_no_gate(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64, 2)
    done = compact(network, constant(network, 0.5), cfg, images)
    assert not isinstance(done.backbone, GatedBackbone)
    assert type(done.backbone) is type(network.backbone)
    assert done.backbone.layer1[0].conv1.out_channels == 4
    with fixed_decisions(network, done.channel_map):
        wanted = network(images)
    assert largest_gap(wanted, done.backbone(images)) < 1e-4


@torch.no_grad()
def test_channels_before_a_sum_are_kept_closed(gated, pictures):
    network, cfg = gated(RESNET, RESIDUAL)
    images = pictures(64, 2)
    done = compact(network, constant(network, 0.5), cfg, images)
    assert isinstance(done.backbone, CompactBackbone)
    for gate in done.backbone.gates.values():
        assert gate.gate is None  # there is no decision left
    assert set(done.refused) == {
        site.name for site in network.sites if site.branch_end
    }


@pytest.mark.parametrize('backend', ['auto', 'torch'])
def test_a_site_without_a_decision_is_dynamic(
    classifier, backend, monkeypatch
):
    """The constant mask of such a site is a list of channels, too."""
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)
    model, _ = classifier()
    network = GatedBackbone(
        dict(type='fgc_mm.CifarResNet', base_channels=8),
        dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
        RESIDUAL,
    ).eval()
    with torch.no_grad():
        bias = network.gates['layer1-0-conv2'].expand.bias
        bias[:4], bias[4:] = -1000, 1000
    cfg = dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=8),
        gate=dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4),
        sites=RESIDUAL,
    )
    images = torch.randn(8, 3, 16, 16)
    firing = firing_statistics(network, [images])
    small = compact(network, firing, cfg, images).backbone
    assert small.gates['layer1-0-conv2'].gate is None
    model.backbone = small
    dynamic = to_dynamic(model, images[:2], backend=backend)
    assert dynamic.dynamic_report()['executor'] == 'program'
    with torch.no_grad():
        for image in images.split(1):
            torch.testing.assert_close(
                dynamic(image), model(image), atol=1e-4, rtol=1e-4
            )
    _, records = dynamic.backbone.forward_gated(images[:1])
    for record, want in zip(
        records, small.forward_gated(images[:1])[1], strict=True
    ):
        assert record.site.name == want.site.name
        assert torch.equal(record.mask, want.mask)


def test_one_channel_at_least_remains(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64, 2)
    done = compact(network, constant(network, 0.0), cfg, images)
    assert done.difference < 1e-4
    assert done.backbone.sites  # always closed, without a decision


def test_a_tolerance_takes_more(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64)
    firing = firing_statistics(network, [images])
    strict, loose = (
        compact(network, firing, cfg, images, t) for t in (0.0, 0.3)
    )
    assert parameters(loose.backbone) < parameters(strict.backbone)
    assert loose.difference < 1e-4


@MODELS.register_module(name='TopHalfGate', force=True)
class TopHalfGate(BinaryConcreteGate):
    """Opens the half of its channels with the largest logits."""

    def forward(self, x):
        decision = super().forward(x)
        order = decision.logits.argsort(1, descending=True).argsort(1)
        mask = (order < decision.mask.shape[1] // 2).float()
        return decision._replace(mask=mask)


@torch.no_grad()
def test_a_gate_that_decides_jointly_is_not_compacted(gated, pictures):
    _, cfg = gated(RESNET)
    cfg = dict(cfg, gate=dict(type='fgc_mm.TopHalfGate'))
    network = MODELS.build(copy.deepcopy(cfg)).eval()
    images = pictures(64)
    firing = firing_statistics(network, [images])
    assert any(stats.never().any() for stats in firing)
    done = compact(network, firing, cfg, images)
    assert set(done.refused.values()) == {
        'its gate does not decide channel by channel'
    }
    for name in done.refused:
        entry = done.channel_map.sites[name]
        assert entry.gated == entry.kept
    assert largest_gap(network(images), done.backbone(images)) < 1e-4


@torch.no_grad()
def test_the_images_show_that_a_gate_decides_jointly(pictures):
    """All 3 open channels are among the 4 of 8, but not the 2 of 3."""
    cfg = dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=8),
        gate=dict(type='fgc_mm.FBSGate', density=0.5),
        sites=['layer1.0.conv1'],
    )
    network = MODELS.build(copy.deepcopy(cfg)).eval()
    (gate,) = network.gates.values()
    gate.predict.weight.zero_()
    gate.predict.weight[2] = 1
    bias = [1.0, 2.0, -15.0, *[-1e6] * 5]  # the third for large maps only
    gate.predict.bias.copy_(torch.tensor(bias))
    images = pictures(16) * 1e3
    firing = firing_statistics(network, [images])
    assert firing[0].never().tolist() == [False] * 3 + [True] * 5
    done = compact(network, firing, cfg, images)
    assert done.refused
    assert largest_gap(network(images), done.backbone(images)) < 1e-4


class Float32Gate(BinaryConcreteGate):
    """A gate that computes in float32, whatever it gets."""

    def forward(self, x):
        for parameter in self.parameters():
            if parameter.dtype != torch.float32:
                raise RuntimeError('expected float32')
        return super().forward(x.float())


@torch.no_grad()
def test_gates_that_have_no_float64(gated, pictures):
    whole, cfg = gated(RESNET)
    cfg['gate'] = dict(cfg['gate'], type=Float32Gate)
    network = MODELS.build(copy.deepcopy(cfg)).eval()
    network.load_state_dict(whole.state_dict())
    images = pictures(64)
    firing = firing_statistics(network, [images])
    assert any(stats.never().any() for stats in firing)
    done = compact(network, firing, cfg, images)
    assert not done.refused
    assert largest_gap(network(images), done.backbone(images)) < 1e-4


@torch.no_grad()
def test_a_density_between_the_numbers_of_float32(pictures):
    """0.6 in float32 is larger: of 10 channels it would open 7."""
    density = dict(start_value=1.0, end_value=0.6, begin=0, end=1)
    cfg = dict(
        type='fgc_mm.GatedBackbone',
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=10),
        gate=dict(type='fgc_mm.FBSGate', density=density),
        sites=['layer1.*'],
    )
    network = MODELS.build(copy.deepcopy(cfg)).eval()
    for gate in network.gates.values():
        gate.trained_density.fill_(0.6)
    images = pictures(16)
    firing = firing_statistics(network, [images])
    done = compact(network, firing, cfg, images)
    assert largest_gap(network(images), done.backbone(images)) < 1e-4


SCALING = {
    'FBS': dict(type='fgc_mm.FBSGate', density=0.5),  # decides jointly
    'FBS, all win': dict(type='fgc_mm.FBSGate', density=1.0),
    'ManiDP': dict(type='fgc_mm.ManiDPGate', keep=0.5),
}


def scaling_classifier(gate, **changes):
    backbone = dict(
        type='fgc_mm.GatedBackbone', gate=gate, sites=RESIDUAL,
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=8),
    )  # fmt: skip
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=backbone | changes,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
        )
    )
    return model.eval(), backbone


@torch.no_grad()
def stir_scaling(model):
    """A third of the channels never opens; the others by image."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    for gate in model.backbone.gates.values():
        last = gate.predict if isinstance(gate, FBSGate) else gate.expand
        nn.init.normal_(last.weight, std=0.2)
        nn.init.constant_(last.bias, 0.3)
        last.bias[::3] = -1000
        if last is not getattr(gate, 'predict', None):
            gate.threshold.fill_(0.3)


@torch.no_grad()
@pytest.mark.parametrize('kind', SCALING)
def test_gates_that_scale_before_a_sum(kind, pictures):
    gate = SCALING[kind]
    model, settings = scaling_classifier(gate)
    stir_scaling(model)
    images = pictures(16).clamp(-2, 2)
    masks = [r.mask for r in model.backbone.forward_gated(images)[1]]
    assert any(((m > 0) & (m != 1)).any() for m in masks)
    assert all(m.isfinite().all() for m in masks)
    done = compact(model, firing_statistics(model, [images]), settings, images)
    ends = [g for s, g in zip(done.backbone.sites,
            done.backbone.gates.values()) if s.branch_end]  # fmt: skip
    # a joint gate is unchanged; others no longer decide closed channels
    assert {type(g) for g in ends} == {
        FBSGate if kind == 'FBS' else PartialGate
    }
    small, _ = scaling_classifier(
        gate, type='fgc_mm.CompactBackbone', channel_map=done.channel_map
    )
    small.load_state_dict(done.state_dict)
    assert parameters(small) < parameters(model) or kind == 'FBS'
    torch.testing.assert_close(
        small(images), model(images), atol=1e-4, rtol=1e-4
    )


def test_it_trains_on(classifier, pictures, tiny):
    model, settings = classifier()
    images = pictures(16)
    done = compact(model, firing_statistics(model, [images]), settings, images)
    assert any(g.gate for g in done.backbone.gates.values()
               if hasattr(g, 'gate'))  # fmt: skip
    small = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=dict(
                settings, type='fgc_mm.CompactBackbone',
                channel_map=done.channel_map,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
            gate_losses=[dict(type='fgc_mm.L0Loss', loss_weight=1.0)],
        )
    )  # fmt: skip
    small.load_state_dict(done.state_dict)
    small.train()
    losses = small.loss(images, tiny.samples([i % 10 for i in range(8)]))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for name, value in small.named_parameters():
        assert value.grad is not None, name


@pytest.mark.parametrize('decides', [True, False])
@torch.no_grad()
def test_a_model_of_double_precision(gated, pictures, decides):
    network, cfg = gated(RESNET)
    if not decides:  # and closed channels that stay, before a sum
        cfg = dict(cfg, sites=RESIDUAL)
        network = MODELS.build(cfg).eval()
        for gate in network.gates.values():
            gate.expand.bias.fill_(1000)
            gate.expand.bias[0] = -1000
    images = pictures(64, 2).double()
    firing = firing_statistics(network.double(), [images])
    done = compact(network, firing, cfg, images)
    assert parameters(done.backbone) < parameters(network)
    (feature,) = done.backbone(images)
    assert feature.dtype == torch.float64
    torch.testing.assert_close(feature, network(images)[0])


def config_of(**distillation):
    model = dict(
        type='fgc_mm.GatedImageClassifier',
        backbone=dict(type='fgc_mm.GatedBackbone', backbone=RESNET),
        gate_losses=[dict(type='fgc_mm.L0Loss')],
    )
    if distillation:
        model['distillation'] = distillation
    metric = dict(type='fgc_mm.DynamicMACs')
    hooks = ['LossProgressHook', 'GateStatisticsHook', 'EMAHook']
    return Config(
        dict(
            model=model,
            val_evaluator=[dict(type='Accuracy'), metric],
            test_evaluator=metric,
            custom_hooks=[dict(type=f'fgc_mm.{name}') for name in hooks],
        )
    )


def only_map(gated):
    return ChannelMap({}, {'conv1': SiteChannels((0, 1), gated)})


def test_a_config_without_gates_has_nothing_of_them():
    cfg = config_of(checkpoint='teacher.pth', temperature=2.0)
    small = small_config(cfg, only_map(()))
    assert set(small.model) == {'type', 'backbone'}
    assert small.model.type == 'ImageClassifier'
    assert small.val_evaluator == [dict(type='Accuracy')]
    assert small.test_evaluator == []
    assert small.custom_hooks == [dict(type='fgc_mm.EMAHook')]
    again = small_config(cfg, only_map((0,)))
    assert again.test_evaluator == cfg.test_evaluator
    assert len(again.custom_hooks) == 3


@pytest.mark.parametrize('own', [None, 'own.pth'])
@pytest.mark.parametrize('start', [None, 'start.pth'])
def test_the_teacher_of_a_small_model_keeps_its_weights(own, start):
    """Those of ``load_from`` are the small model's from now on."""
    cfg = config_of(checkpoint=own, temperature=2.0)
    cfg.load_from = start
    small = small_config(cfg, only_map((0,)))
    weights = own or start
    assert small.load_from.endswith('model.pth')
    assert small.model.get('distillation') == (
        dict(checkpoint=weights, temperature=2.0) if weights else None
    )
    assert (
        'distillation' not in small_config(config_of(), only_map((0,))).model
    )


def test_a_difference_of_several_maps():
    maps = [torch.ones(2, 3), torch.full((2, 3), -4.0)]
    assert largest_gap(maps, [maps[0], maps[1] + 1]) == 0.25
    assert isnan(largest_gap(maps, [maps[0], maps[1] * torch.nan]))
    assert largest_gap(maps, maps[:1]) == float('inf')
    assert largest_gap(maps, maps[::-1]) == 1.25


@torch.no_grad()
def test_features_that_are_nan_are_not_the_same(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64, 2)
    firing = firing_statistics(network, [images])
    network.backbone.layer4[1].conv2.weight.fill_(torch.nan)
    with pytest.raises(FGCError, match='gives other features'):
        compact(network, firing, cfg, images)


def test_settings_with_a_module_are_refused(gated, pictures):
    """The small network would be built by shrinking this module."""
    network, cfg = gated(RESNET)
    images = pictures(64, 2)
    firing = firing_statistics(network, [images])
    before = parameters(network)
    with pytest.raises(FGCError, match=r'module \(ResNet\)'):
        compact(network, firing, dict(cfg, backbone=network.backbone), images)
    assert parameters(network) == before


def test_half_precision_is_refused(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64, 2).bfloat16()
    firing = firing_statistics(network.bfloat16(), [images])
    with pytest.raises(FGCError, match=r'bfloat16.*model\.float\(\)'):
        compact(network, firing, cfg, images)


def test_bad_input_is_one_sentence(gated, pictures):
    network, cfg = gated(RESNET)
    images = pictures(64, 2)
    firing = firing_statistics(network, [images])
    with pytest.raises(FGCError, match=r'tolerance=0\.7'):
        compact(network, firing, cfg, images, 0.7)
    with pytest.raises(FGCError, match='other sites'):
        compact(network, firing[1:], cfg, images)
    with pytest.raises(FGCError, match='no gates'):
        compact(nn.Linear(2, 2), firing, cfg, images)
    done = compact(network, firing, cfg, images)
    if isinstance(done.backbone, CompactBackbone):
        again = firing_statistics(done.backbone, [images])
        with pytest.raises(FGCError, match='compact already'):
            compact(done.backbone, again, cfg, images)
    other = dict(RESNET, base_channels=16, stem_channels=16)
    with pytest.raises(FGCError, match='fits the network that it was made'):
        CompactBackbone(other, cfg['gate'], done.channel_map)


@torch.no_grad()
def test_gates_that_need_all_channels_of_another_site(pictures):
    """FTWT's take a softmax over their input."""
    torch.manual_seed(0)
    settings = dict(
        type='fgc_mm.GatedBackbone', gate=dict(type='fgc_mm.FTWTGate'),
        backbone=dict(type='ResNet', depth=50, base_channels=16, **TWO_STAGES),
    )  # fmt: skip
    network = MODELS.build(copy.deepcopy(settings)).eval()
    images = pictures(64)

    def half_of_the_images(gate, inputs):
        """Opens all channels but one for half of the images."""
        middle = gate.forward(inputs[0]).logits.median(dim=0).values
        gate.predict.bias -= middle + 1e-7
        gate.predict.bias[0] = -1e3

    hooks = [
        gate.register_forward_pre_hook(half_of_the_images)
        for gate in network.gates.values()
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    firing = firing_statistics(network, [images])
    assert all(stats.never()[0] for stats in firing)
    done = compact(network, firing, settings, images)
    kept = {site: x.kept for site, x in done.channel_map.sites.items()}
    for block in ('layer1.1', 'layer2.1'):
        # the second gate reads the channels of the first site
        assert 'needs them' in done.refused[f'{block}.conv1']
        assert f'{block}.conv2' not in done.refused
        assert 0 in kept[f'{block}.conv1']
        assert 0 not in kept[f'{block}.conv2']
    assert largest_gap(network(images), done.backbone(images)) < 1e-4
