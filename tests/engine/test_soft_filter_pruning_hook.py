"""Soft filter pruning, against loops over filters."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmcv.cnn.bricks import ConvWS2d
from mmengine.hooks import EMAHook
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.utils import parametrizations, prune

from fgc_mm.deploy.compaction.zeroed import prune_zeroed
from fgc_mm.engine.soft_filter_pruning_hook import (
    SoftFilterPruningHook,
    lowest_channels,
)
from fgc_mm.errors import FGCError

NETWORKS = {
    'resnet': (dict(type='fgc_mm.CifarResNet', base_channels=4), 16),
    # an expanding conv, a depthwise one, and the conv that reads both
    'mobilenet': (dict(type='MobileNetV2', widen_factor=0.1), 1280),
    # the same with squeeze-and-excitation between them
    'mobilenet with SE': (dict(type='MobileNetV3', arch='small'), 576),
}


def runner_of(name, epochs=2):
    backbone, channels = NETWORKS[name]
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=10, in_channels=channels
            ),
        )
    )
    for module in model.modules():  # channels that differ, and biases
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model.eval()
    return SimpleNamespace(model=model, epoch=0, max_epochs=epochs, hooks=[])


def naive_lowest(weight, rate):
    """By loops over every number of every filter."""
    norms = []
    for number, filters in enumerate(weight.tolist()):
        flat, total = [filters], 0.0
        while flat:
            item = flat.pop()
            if isinstance(item, list):
                flat.extend(item)
            else:
                total += item * item
        norms.append((total, number))
    return {number for _, number in sorted(norms)[: int(len(norms) * rate)]}


def weights(runner):
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


def epoch(hook, runner, number):
    runner.epoch = number
    before = weights(runner)
    hook.after_train_epoch(runner)
    return before, weights(runner)


@pytest.mark.parametrize('rate', [0.3, 0.55])
def test_the_lowest_filters_are_zeroed_and_nothing_else(rate):
    runner = runner_of('resnet')
    hook = SoftFilterPruningHook(rate)
    hook.before_train(runner)
    convs = [f'layer{s}.{b}.conv1' for s in (1, 2, 3) for b in (0, 1, 2)]
    assert [site.producer for site in hook.sites] == convs
    before, after = epoch(hook, runner, 0)
    for path in convs:
        key = f'backbone.{path}.weight'
        lowest = naive_lowest(before.pop(key), rate)
        found = after.pop(key)
        assert 0 < len(lowest) < len(found)
        for number in range(len(found)):
            assert (found[number] == 0).all() == (number in lowest)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_filter_that_has_grown_comes_back():
    runner = runner_of('resnet', epochs=3)
    hook = SoftFilterPruningHook(0.5)
    hook.before_train(runner)
    epoch(hook, runner, 0)
    weight = runner.model.backbone.layer1[0].conv1.weight
    zeroed = [i for i in range(4) if not weight[i].any()]
    assert len(zeroed) == 2
    with torch.no_grad():
        weight[zeroed] = 100.0
    epoch(hook, runner, 1)
    assert [i for i in range(4) if weight[i].any()] == zeroed


@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_after_the_last_epoch_the_channels_can_go(name):
    runner = runner_of(name)
    hook = SoftFilterPruningHook(0.5)
    hook.before_train(runner)
    epoch(hook, runner, 0)
    images = torch.randn(2, 3, 16, 16)
    if name == 'resnet':  # they are still read
        with pytest.raises(FGCError, match='no channel has a zero filter'):
            prune_zeroed(runner.model, images)
    epoch(hook, runner, 1)
    model = runner.model
    pruned = prune_zeroed(model, images)
    assert torch.allclose(pruned.model(images), model(images), atol=1e-4)
    for site in hook.sites:
        kept = pruned.channel_map.layers[site.producer].outputs
        weight = model.backbone.get_submodule(site.producer).weight
        alive = [i for i in range(len(weight)) if weight[i].any()]
        assert list(kept) == alive
        assert len(alive) == len(weight) - len(weight) // 2
    assert pruned.macs < pruned.dense


def test_bad_input(tiny):
    for rate in (0, 1, -0.5, '0.4', None):
        with pytest.raises(FGCError, match='not a fraction of the filters'):
            SoftFilterPruningHook(rate)
    gated = SimpleNamespace(model=tiny.build(), hooks=[])
    with pytest.raises(FGCError, match='the backbone has gates'):
        SoftFilterPruningHook(0.4).before_train(gated)
    averaged = runner_of('resnet')
    averaged.hooks.append(EMAHook())
    with pytest.raises(FGCError, match='EMAHook tests and saves an average'):
        SoftFilterPruningHook(0.4).before_train(averaged)
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    by_iteration = SimpleNamespace(train_loop=loop)
    with pytest.raises(FGCError, match='treats the whole run as one'):
        SoftFilterPruningHook(0.4).before_train(by_iteration)
    with pytest.raises(FGCError, match='the model has gates'):
        prune_zeroed(gated.model.eval(), torch.zeros(2, 3, 8, 8))


def test_channels_of_two_filters_are_zeroed_together():
    """ResNeSt sums two filters per channel."""
    torch.manual_seed(0)
    backbone = MODELS.build(
        dict(
            type='ResNeSt', depth=50, num_stages=1, strides=(1,),
            dilations=(1,), out_indices=(0,), base_channels=8,
            stem_channels=8,
        )
    )  # fmt: skip
    runner = SimpleNamespace(
        model=SimpleNamespace(backbone=backbone),
        epoch=0,
        max_epochs=2,
        hooks=[],
    )
    hook = SoftFilterPruningHook(0.4)
    hook.before_train(runner)
    (site,) = (
        site for site in hook.sites if site.name == 'layer1.0.conv2.conv'
    )
    positions = site.outputs[0].positions
    conv = backbone.get_submodule(site.producer)
    assert len(positions) == len(conv.weight) == 2 * site.channels
    before = conv.weight.detach().clone()
    hook.after_train_epoch(runner)
    zeroed = (conv.weight == 0).flatten(1).all(1)
    sums = [0.0] * site.channels
    for row, channel in zip(before, positions):
        sums[channel] += float(row.square().sum())
    lowest = sorted(range(site.channels), key=sums.__getitem__)
    lowest = lowest[: int(0.4 * site.channels)]
    assert zeroed.tolist() == [channel in lowest for channel in positions]
    runner.epoch = 1
    hook.after_train_epoch(runner)
    zeroed = (conv.weight == 0).flatten(1).all(1).tolist()
    lowest = [c for c, zero in zip(positions, zeroed) if zero]
    assert len(lowest) == 2 * int(0.4 * site.channels)
    for consumer in site.consumers:
        layer = backbone.get_submodule(consumer.path)
        reads = consumer.positions or range(site.channels)
        for index, channel in enumerate(reads):
            unread = not layer.weight[:, index].any()
            assert unread == (channel in lowest)


COMPUTED = {
    'weight_norm': torch.nn.utils.weight_norm,
    'spectral_norm': torch.nn.utils.spectral_norm,
    'prune': partial(prune.l1_unstructured, name='weight', amount=0.3),
    'parametrized': parametrizations.weight_norm,
}


@pytest.mark.parametrize('kind', COMPUTED)
def test_weights_that_are_computed_cannot_hold_zeros(kind):
    """Refused in a site's layers; elsewhere they do no harm."""
    images = torch.randn(2, 3, 16, 16)
    for path in ('layer1.0.conv1', 'layer1.0.conv2', 'conv1'):
        runner = runner_of('resnet', epochs=1)
        backbone = runner.model.backbone
        COMPUTED[kind](backbone.get_submodule(path))
        backbone(images)  # the computed weight belongs to a graph
        hook = SoftFilterPruningHook(0.5)
        if path == 'conv1':  # is read by a residual sum
            hook.before_train(runner)
            hook.after_train_epoch(runner)
            assert prune_zeroed(runner.model, images)
            continue
        with pytest.raises(FGCError, match=f'the weight of {path} to zero'):
            hook.before_train(runner)
        assert not hook.sites
        others = [f'layer{s}.{b}.conv1' for s in (1, 2, 3) for b in (0, 1, 2)]
        left = SoftFilterPruningHook(0.5, sites=others[1:])
        left.before_train(runner)
        assert [site.producer for site in left.sites] == others[1:]


def test_a_computed_bias_cannot_hold_zeros():
    runner = runner_of('resnet')
    conv = runner.model.backbone.layer1[0].conv1
    conv.bias = nn.Parameter(torch.ones(4))
    prune.l1_unstructured(conv, 'bias', amount=0.5)
    with pytest.raises(FGCError, match='the bias of layer1'):
        SoftFilterPruningHook(0.5).before_train(runner)


def test_weights_that_are_standardised_cannot_hold_zeros():
    """A parameter, of which the pass subtracts the mean."""
    runner = runner_of('resnet')
    block = runner.model.backbone.layer1[0]
    block.conv2 = ConvWS2d(4, 4, 3, padding=1, bias=False)
    with pytest.raises(FGCError, match=r'layer1\.0\.conv2 \(ConvWS2d\) comp'):
        SoftFilterPruningHook(0.5).before_train(runner)


@pytest.mark.parametrize('number', range(1, 100))
def test_a_percentage_of_100_filters(number):
    """100 * 0.29 is less than 29."""
    weight = torch.arange(1.0, 101)[:, None]
    lowest = lowest_channels(weight, torch.arange(100), number / 100)
    assert lowest.tolist() == list(range(number))
