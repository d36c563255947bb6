"""Gates on unchanged networks."""

import copy
import pickle

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models import CifarResNet, GatedBackbone
from fgc_mm.registry import MODELS
from fgc_mm.sites.call import state_of

GATE = dict(type='fgc_mm.BinaryConcreteGate')
SMALL = dict(type='fgc_mm.CifarResNet', base_channels=4)
NORM_OF = {'conv1': 'bn1', 'conv2': 'bn2'}


@pytest.fixture
def small(well_used):
    torch.manual_seed(0)
    return well_used(GatedBackbone(SMALL, GATE)).eval()


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


@torch.no_grad()
def test_all_gates_open_is_the_plain_network(
    gated_backbone, set_gates, images
):
    model = copy.deepcopy(gated_backbone)
    plain = copy.deepcopy(model.backbone)
    dense = plain(images)
    set_gates(model, 1)
    assert same(model(images), dense)
    set_gates(model, 0)
    assert not same(model(images), dense)


@torch.no_grad()
def test_closed_channels_have_no_influence(
    gated_backbone, set_gates, images, random_masks
):
    model = copy.deepcopy(gated_backbone)
    masks = random_masks(model.sites)
    set_gates(model, masks)
    before = model(images)
    for site, mask in zip(model.sites, masks, strict=True):
        block, name = site.producer.rsplit('.', 1)
        block = model.backbone.get_submodule(block)
        norm = getattr(block, NORM_OF[name])
        block.get_submodule(name).weight[~mask] = 1e3
        for values in (norm.weight, norm.bias, norm.running_mean):
            values[~mask] = -77.0
    assert same(model(images), before)


@torch.no_grad()
def test_open_channels_have_influence(gated_backbone, set_gates, images):
    model = copy.deepcopy(gated_backbone)
    set_gates(model, 1)
    for site, gate in zip(model.sites, model.gates.values(), strict=True):
        before = model(images)
        gate.expand.bias[::2] = -50
        assert not same(model(images), before), site
        gate.expand.bias[::2] = 50


@torch.no_grad()
def test_the_inner_backbone_alone_is_dense(gated_backbone, set_gates, images):
    model = copy.deepcopy(gated_backbone)
    dense = model.backbone(images)
    set_gates(model, 0)
    model(images)
    assert same(model.backbone(images), dense)


def test_records_have_the_masks_of_every_site(gated_backbone, images):
    with torch.no_grad():
        outputs, records = gated_backbone.forward_gated(images)
        assert same(outputs, gated_backbone(images))
    assert [r.site for r in records] == gated_backbone.sites
    for record in records:
        shape = (len(images), record.site.channels)
        assert record.mask.shape == record.probs.shape == shape
        assert torch.equal(record.mask, (record.logits > 0).float())
        assert record.activation is None


def test_activations_are_kept_in_training_or_on_demand(small, images):
    kept = small.forward_gated(images, keep_activation=True)[1]
    assert all(r.activation.shape[:2] == r.mask.shape for r in kept)
    small.train()
    trained = small.forward_gated(images)[1]
    assert all(r.activation is not None for r in trained)
    dropped = small.forward_gated(images, keep_activation=False)[1]
    assert all(r.activation is None for r in dropped)


@torch.no_grad()
def test_an_activation_is_what_the_gate_multiplies(small, images):
    # the first gated conv reads the stem, which no gate has touched
    record = small.forward_gated(images, keep_activation=True)[1][0]
    net, block = small.backbone, small.backbone.layer1[0]
    stem = net.relu(net.bn1(net.conv1(images)))
    want = block.bn1(block.conv1(stem)).relu()
    assert torch.equal(record.activation, want)


def test_gates_learn_from_the_task(small, images):
    small.train()
    small(images)[0].square().sum().backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_a_copy_has_gates_of_its_own(small, images, set_gates):
    set_gates(small, 1)
    copied = copy.deepcopy(small)
    before = small(images)
    set_gates(copied, 0)
    changed = copied(images)
    assert same(small(images), before) and not same(changed, before)
    set_gates(small, 0)
    assert same(copied(images), small(images)) and same(
        copied(images), changed
    )
    assert copied._site_hooks[0].gate is copied.gates['layer1-0-conv1']


@torch.no_grad()
def test_pickling_keeps_the_gates_on(small, images):
    copied = pickle.loads(pickle.dumps(small))
    assert same(copied(images), small(images))
    assert len(copied.forward_gated(images)[1]) == 9


def test_a_forward_that_raises_leaves_no_record(small, images):
    hook = small.backbone.layer3.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match='on purpose'):
        small(images)
    hook.remove()
    assert all(state_of(hooks) is None for hooks in small._site_hooks)
    dense = copy.deepcopy(small.backbone)
    with torch.no_grad():
        assert same(small.backbone(images), dense(images))
    assert len(small.forward_gated(images)[1]) == 9


def fail(*_):
    raise RuntimeError('on purpose')


def test_a_site_that_does_not_run_is_refused(small, images):
    small.backbone.layer2 = nn.Conv2d(4, 8, 1)
    with pytest.raises(FGCError, match=r'^layer2\.0\.conv1 did not run'):
        small(images)


def test_modes_return_the_backbone(small):
    assert small.train() is small and small.gates.training
    assert small.eval() is small and not small.backbone.layer1.training


def test_only_the_wanted_sites_get_gates(images):
    model = GatedBackbone(SMALL, GATE, sites=['layer3.*'])
    assert list(model.gates) == [f'layer3-{i}-conv1' for i in range(3)]
    assert len(model.eval().forward_gated(images)[1]) == 3
    with pytest.raises(FGCError, match=r"'nowhere'.*layer1\.0\.conv1"):
        GatedBackbone(SMALL, GATE, sites=['nowhere'])


def test_a_backbone_may_be_a_module():
    inner = CifarResNet(20, base_channels=4)
    assert GatedBackbone(inner, GATE).backbone is inner


# checkpoints


@pytest.fixture
def plain():
    torch.manual_seed(5)
    network = CifarResNet(20, base_channels=4)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer)
    return network


def holds(model, network):
    own = model.backbone.state_dict()
    return all(
        torch.equal(own[key], value)
        for key, value in network.state_dict().items()
    )


def test_a_plain_state_dict_loads(small, plain):
    state = plain.state_dict()
    result = small.load_state_dict(state, strict=False)
    assert holds(small, plain) and not result.unexpected_keys
    gates = {f'gates.{key}' for key, _ in small.gates.named_parameters()}
    missing = set(result.missing_keys)
    assert gates < missing
    assert all(key.startswith('gates.') for key in missing)
    assert state.keys() == plain.state_dict().keys()  # not the caller's


def test_missing_gates_are_an_error_when_strict(small, plain):
    with pytest.raises(RuntimeError, match=r'gates\.layer1-0-conv1\.sq'):
        small.load_state_dict(plain.state_dict())


def test_a_state_dict_makes_the_round_trip(small, images):
    torch.manual_seed(9)
    other = GatedBackbone(SMALL, GATE).eval()
    other.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert same(other(images), small(images))


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_mmengine_loads_a_plain_file(small, plain, prefix, tmp_path, capfd):
    state = {prefix + k: v for k, v in plain.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'plain.pth')
    load_checkpoint(small, str(tmp_path / 'plain.pth'))
    assert holds(small, plain)
    output = ''.join(capfd.readouterr())
    assert 'missing keys' in output and 'gates.layer1-0-conv1' in output
    assert 'unexpected' not in output


@pytest.mark.parametrize('prefix', [None, 'backbone'])
@pytest.mark.parametrize('where', ['wrapper', 'wrapped'])
def test_init_cfg_loads_a_plain_file(plain, prefix, where, tmp_path):
    name = f'{prefix}.' if prefix else ''
    state = {name + k: v for k, v in plain.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'plain.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
    if prefix:
        init['prefix'] = prefix
    cfg = dict(type='fgc_mm.GatedBackbone', backbone=dict(SMALL), gate=GATE)
    (cfg if where == 'wrapper' else cfg['backbone'])['init_cfg'] = init
    model = MODELS.build(cfg)
    model.init_weights()
    assert holds(model, plain)


def test_a_whole_classifier_loads_through_the_wrappers_init_cfg(
    plain, tmp_path
):
    # no prefix given: the classifier calls its backbone as we call ours
    state = {f'backbone.{k}': v for k, v in plain.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(10, 16)
    torch.save(dict(state_dict=state), tmp_path / 'whole.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'whole.pth'))
    model = GatedBackbone(SMALL, GATE, init_cfg=init)
    model.init_weights()
    assert holds(model, plain)


def test_a_shape_that_does_not_match_is_named(small, tmp_path, capfd):
    wide = CifarResNet(20, base_channels=8).state_dict()
    with pytest.raises(RuntimeError, match=r'backbone\.conv1\.weight'):
        small.load_state_dict(wide, strict=False)
    torch.save(dict(state_dict=wide), tmp_path / 'wide.pth')
    load_checkpoint(small, str(tmp_path / 'wide.pth'))
    output = ''.join(capfd.readouterr())
    assert 'size mismatch for backbone.conv1.weight' in output


def test_a_gated_checkpoint_is_not_renamed(small):
    keys = set(small.state_dict())
    assert all(k.startswith(('backbone.', 'gates.')) for k in keys)
    assert small.load_state_dict(small.state_dict()).missing_keys == []
