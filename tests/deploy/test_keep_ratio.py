"""Gates set to a share of channels."""

import pytest
import torch
from torch import nn

from fgc_mm.deploy import set_keep_ratio
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone

SMALL = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)


@pytest.mark.parametrize('again', [False, True])
@pytest.mark.parametrize('keep', [0.44, 0.7])
@torch.no_grad()
def test_every_site_opens_that_share_and_masks_vary(
    gated, pictures, keep, again
):
    network, _ = gated(SMALL)
    for gate in network.gates.values():  # no channel fixed
        gate.expand.bias.zero_()
    images = pictures(64, 48)
    set_keep_ratio(network, images, 0.5 if again else keep, fresh=True)
    if again:  # now as one that was trained
        set_keep_ratio(network, images, keep)
    for record in network.forward_gated(images)[1]:
        assert record.mask.mean() == pytest.approx(keep, abs=0.02)
        rates = record.mask.mean(0)
        assert rates.min() > 0 and rates.max() < 1
        assert rates.std() > 0.05
        assert len(record.mask.unique(dim=0)) > 10


@torch.no_grad()
def test_weights_of_a_trained_model_stay(gated, pictures):
    network, _ = gated(SMALL)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    set_keep_ratio(network, pictures(64, 16), 0.5)
    changed = {
        key
        for key, value in network.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed and all(k.endswith('expand.bias') for k in changed)


@pytest.mark.parametrize('fresh', [False, True])
@torch.no_grad()
def test_a_model_in_training_is_set_as_in_evaluation(gated, pictures, fresh):
    images = pictures(64, 16)
    states = []
    for training in (False, True):
        network, _ = gated(SMALL)
        network.train(training)
        modes = [module.training for module in network.modules()]
        set_keep_ratio(network, images, 0.5, fresh)
        assert [module.training for module in network.modules()] == modes
        states.append(network.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key


@torch.no_grad()
def test_bad_input_is_one_sentence(gated, pictures):
    network, _ = gated(SMALL)
    images = pictures(64, 16)
    with pytest.raises(FGCError, match=r'keep ratio 1\.5'):
        set_keep_ratio(network, images, 1.5)
    with pytest.raises(FGCError, match='2 images are too few'):
        set_keep_ratio(network, images[:2], 0.5)
    with pytest.raises(FGCError, match='no gates'):
        set_keep_ratio(network.backbone, images, 0.5)
    gate = network.gates['layer1-0-conv1']
    nn.init.zeros_(gate.expand.weight)  # one answer for all images
    with pytest.raises(FGCError, match=r'layer1\.0\.conv1 opens'):
        set_keep_ratio(network, images, 0.44)
    gate.expand = nn.Linear(4, 8, bias=False)
    with pytest.raises(FGCError, match='does not end in a linear layer'):
        set_keep_ratio(network, images, 0.44)


@pytest.mark.parametrize('fresh', [False, True])
def test_inference_tensors_are_one_sentence(gated, pictures, fresh):
    network, _ = gated(SMALL)
    with torch.inference_mode():
        state = {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(state, assign=True)
    with pytest.raises(FGCError, match=r'torch\.inference_mode'):
        set_keep_ratio(network, pictures(64, 16), 0.5, fresh)


@pytest.mark.parametrize('fresh', [False, True])
@pytest.mark.parametrize('what', ['nan', 'fbs'])
@torch.no_grad()
def test_a_failure_changes_nothing(gated, pictures, what, fresh):
    network, _ = gated(SMALL)
    if what == 'fbs':
        gate = dict(type='fgc_mm.FBSGate', density=0.75)
        network = GatedBackbone(dict(SMALL), gate)
    else:
        network.backbone.layer2[0].conv1.weight[0, 0, 0, 0] = float('nan')
    before = {k: v.clone() for k, v in network.state_dict().items()}
    problem = {
        'nan': r'layer2\.1\.conv1 .*nan or inf.*the weights before it',
        'fbs': 'its mask is not the sign of its logits',
    }
    with pytest.raises(FGCError, match=problem[what]):
        set_keep_ratio(network, pictures(64, 16), 0.4, fresh)
    for key, value in network.state_dict().items():
        assert torch.allclose(value, before[key], 0, 0, equal_nan=True), key
