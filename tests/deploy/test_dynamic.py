"""Dynamic models and masked models have the same outputs."""

import copy
import dataclasses
import functools
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import fgc_mm.deploy.dynamic.calibrate as calibration
from fgc_mm.deploy import DynamicPlan, to_dynamic
from fgc_mm.deploy.comparing import difference
from fgc_mm.deploy.dynamic import build as building
from fgc_mm.deploy.dynamic import model as modelling
from fgc_mm.deploy.dynamic.model import DynamicBackbone
from fgc_mm.deploy.dynamic.programs import KernelProgram
from fgc_mm.deploy.graph import mask_check
from fgc_mm.deploy.graph.interpreter import interpret
from fgc_mm.deploy.graph.network import CapturedNetwork
from fgc_mm.errors import FGCError
from fgc_mm.gates import GateDecision
from fgc_mm.models import CifarResNet
from fgc_mm.registry import MODELS
from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import has_bfloat16

TWO = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
# (backbone, image size, sites that can be dynamic at least)
NETWORKS = {
    'CifarResNet': (dict(type='fgc_mm.CifarResNet', base_channels=8), 16, 9),
    'ResNet-18': (
        dict(type='ResNet', depth=18, base_channels=8, stem_channels=8), 64, 8,
    ),
    'ResNet-50': (
        dict(type='ResNet', depth=50, base_channels=8, **TWO), 32, 15,
    ),
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.25), 64, 17),
    'MobileNetV3': (dict(type='MobileNetV3', arch='small_050'), 64, 9),
    'VGG': (dict(type='VGG', depth=11, norm_cfg=dict(type='BN')), 32, 7),
    'ShuffleNetV2': (dict(type='ShuffleNetV2', widen_factor=0.5), 64, 16),
    'DenseNet': (
        dict(type='DenseNet', arch=dict(
            growth_rate=8, depths=[2, 2, 2, 2], init_channels=16)), 64, 12,
    ),
    'ResNeXt': (
        dict(type='ResNeXt', depth=50, groups=4, width_per_group=4,
             base_channels=8, **TWO), 32, 1,
    ),
    'SEResNet': (
        dict(type='SEResNet', depth=50, base_channels=16, **TWO), 32, 21,
    ),
    'ViT': (
        dict(type='VisionTransformer', img_size=32, patch_size=8, arch=dict(
            embed_dims=24, num_layers=2, num_heads=2,
            feedforward_channels=48), out_type='avg_featmap'), 32, 2,
    ),
}  # fmt: skip


needs_kernel = pytest.mark.needs_kernel
WAYS = [pytest.param('kernel', marks=needs_kernel), 'torch']


def dynamic_of(model, images, way):
    """Run by the runtime, or by torch."""
    dynamic = to_dynamic(model, images, backend=way)
    assert dynamic.plan.executor == 'program', dynamic.plan.executor_why
    return dynamic


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibration, 'REPEATS', 1)


@pytest.fixture
def all_sites_pay(monkeypatch):
    """Skip channels wherever possible, regardless of the timing."""
    monkeypatch.setattr(calibration, '_is_faster', lambda *_: True)


def used(network):
    """Norms and gates as after training: about half of the channels open."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.running_mean, module.bias.data):
                values.normal_(0, 0.3, generator=generator)
    for gate in network.backbone.gates.values():
        gate.expand.bias.data.normal_(0, 0.3, generator=generator)
        gate.expand.weight.data.normal_(0, 1, generator=generator)
    return network.eval()


GATE = dict(type='fgc_mm.BinaryConcreteGate')


def build(backbone, size, gate=GATE):
    torch.manual_seed(0)
    wrapped = dict(type='fgc_mm.GatedBackbone', backbone=backbone, gate=gate)
    wrapped = MODELS.build(wrapped).eval()
    channels = wrapped(torch.zeros(1, 3, size, size))[-1].shape[1]
    neck = dict(type='GlobalAveragePooling')
    if backbone['type'] == 'VisionTransformer':
        neck = None
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=wrapped,
            neck=neck,
            head=dict(
                type='LinearClsHead', num_classes=10, in_channels=channels
            ),
        )
    )


@functools.cache
def masked(name):
    """A masked model and four images; no test changes them."""
    backbone, size, _ = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, size, size, generator=generator)
    return used(build(backbone, size)), images


@functools.cache
def _made(name, way):
    model, images = masked(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, 'REPEATS', 1)
        patch.setattr(calibration, '_is_faster', lambda *_: True)
        return dynamic_of(model, images[:1], way)


def made(name, way='auto'):
    """The dynamic model of a network, whose sites all pay; made once."""
    return copy.deepcopy(_made(name, way))


@pytest.fixture(scope='module')
def small():
    """One network of plain blocks."""
    return masked('CifarResNet')


@torch.no_grad()
def one_by_one(model, images):
    return torch.cat([model(image) for image in images.split(1)])


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', NETWORKS)
def test_logits_are_those_of_the_masked_model(name, way):
    *_, least = NETWORKS[name]
    model, images = masked(name)
    images = images[:3]
    dynamic = made(name, way)
    program = dynamic.program(images)
    assert program.fallbacks == []  # torch computes nothing
    sites = dynamic.dynamic_report()['sites']
    executed = [site['executed'] for site in sites.values()]
    assert executed.count('dynamic') >= least, sites
    want = one_by_one(model, images)
    torch.testing.assert_close(
        one_by_one(dynamic, images), want, atol=1e-4, rtol=1e-4
    )
    for batch in ('loop', 'batch'):  # every channel, masked, in a batch
        dynamic.backbone.batch = batch
        got = dynamic(images)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', ['VGG', 'ResNet-50'])
@torch.no_grad()
def test_some_sites_skip_and_others_do_not(name, way):
    """A gate may read an input that another gate has masked."""
    model, images = masked(name)
    images, dynamic = images[:2], made(name, way)
    want, all_masked = model.backbone.forward_gated(images)
    names = [site.name for site in model.backbone.sites]
    for first in (0, 1):
        dynamic.backbone.dense = dict.fromkeys(names[first::2], 'a try')
        got, records = dynamic.backbone.forward_gated(images)
        for one, other in zip(all_masked, records):
            torch.testing.assert_close(
                one.logits, other.logits, atol=1e-4, rtol=1e-4
            )
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('way', WAYS)
def test_predictions_and_records(small, way):
    model, images = small
    dynamic = made('CifarResNet', way)
    for batch in ('loop', 'batch'):
        dynamic.backbone.batch = batch
        want = model.predict(images)
        got = dynamic.predict(images)
        for one, other in zip(want, got):
            assert torch.equal(one.gate_masks, other.gate_masks)
            assert one.macs == other.macs
            torch.testing.assert_close(one.pred_score, other.pred_score)
    for stage in ('backbone', 'neck', 'pre_logits'):
        want = model.extract_feat(images, stage=stage)
        got = dynamic.extract_feat(images, stage=stage)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def force(model, logit):
    model = copy.deepcopy(model)
    for gate in model.backbone.gates.values():
        nn.init.zeros_(gate.expand.weight)
        gate.expand.bias.data.fill_(logit)
    return model


@pytest.mark.parametrize(
    ('name', 'way'),
    [
        ('CifarResNet', 'torch'),
        ('ViT', 'torch'),
        *(
            pytest.param(name, 'kernel', marks=needs_kernel)
            for name in ('CifarResNet', 'MobileNetV3', 'ViT')
        ),
    ],
)
@pytest.mark.usefixtures('all_sites_pay')
@pytest.mark.parametrize('logit', [-9.0, 9.0], ids=['closed', 'open'])
def test_all_closed_and_all_open(name, way, logit):
    *_, least = NETWORKS[name]
    model, images = masked(name)
    model, images = force(model, logit), images[:2]
    dynamic = dynamic_of(model, images[:1], way)
    sites = dynamic.dynamic_report()['sites'].values()
    assert sum(s['executed'] == 'dynamic' for s in sites) >= least
    torch.testing.assert_close(
        one_by_one(dynamic, images),
        one_by_one(model, images),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', ['CifarResNet', 'ResNet-50', 'SEResNet'])
def test_closed_channels_are_never_computed(name, way, monkeypatch):
    """Their weights become nan, and nothing changes."""
    image, dynamic = masked(name)[1][:1], made(name, way)
    want = dynamic(image)
    _, records = dynamic.backbone.forward_gated(image)
    masks = {record.site.name: record.mask[0] for record in records}
    find, poisoned = dynamic.backbone.backbone.get_submodule, 0
    for site in dynamic.backbone.sites:
        closed = masks[site.name] == 0
        members = [(m, 0) for m in site.outputs]
        members += [(m, 1) for m in site.consumers]
        for member, dim in members:
            weight = find(member.path).weight.data
            poisoned += int(closed.sum())
            weight.movedim(dim, 0)[closed] = float('nan')
    dynamic.backbone.load_state_dict({}, strict=False)  # new programs
    assert poisoned > 50
    # the masked network that it is compared with gives nan
    monkeypatch.setattr(
        type(dynamic.backbone), '_check_program', lambda *_: ''
    )
    assert torch.equal(dynamic.program(image).run(image)[0], want)


class Scaling(nn.Module):
    """A gate whose mask is a factor, like those of FBS and ManiDP."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, x):
        logits = self.linear(x.flatten(2).mean(2))
        return GateDecision(logits, logits.sigmoid(), 2 * logits.relu())


@pytest.mark.usefixtures('all_sites_pay')
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', ['CifarResNet', 'ResNet-50', 'SEResNet'])
def test_factors_scale_open_channels(name, way):
    MODELS.register_module('ScalingTestGate', module=Scaling, force=True)
    backbone, size, least = NETWORKS[name]
    model = build(backbone, size, gate=dict(type='fgc_mm.ScalingTestGate'))
    model.eval()
    images = torch.randn(3, 3, size, size)
    dynamic = dynamic_of(model, images[:1], way)
    sites = dynamic.dynamic_report()['sites'].values()
    assert sum(s['executed'] == 'dynamic' for s in sites) >= least
    want = one_by_one(model, images)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('way', WAYS)
def test_loaded_weights_are_used(small, way):
    model, images = small
    dynamic = made('CifarResNet', way)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    before = dynamic(images)
    dynamic.load_state_dict(other.state_dict())
    want = one_by_one(other, images)
    assert not torch.allclose(before, want, atol=1e-2)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('way', WAYS)
def test_another_threshold_is_applied(small, way):
    model, images = small
    dynamic = made('CifarResNet', way)
    model = copy.deepcopy(model)
    before = dynamic(images)
    for backbone in (model.backbone, dynamic.backbone):
        for gate in backbone.gates.values():
            gate.threshold = 0.8
    want = one_by_one(model, images)
    assert not torch.allclose(before, want, atol=1e-2)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


def test_dtype_and_device_cannot_change(small):
    model, images = small
    dynamic = to_dynamic(model, images)
    want = dynamic(images)
    with pytest.raises(FGCError, match='cannot be moved to'):
        dynamic.double()
    assert torch.equal(dynamic.float().cpu()(images), want)
    double = to_dynamic(copy.deepcopy(model).double(), images)
    torch.testing.assert_close(
        double(images.double()), want.double(), atol=1e-4, rtol=1e-4
    )


@needs_kernel
def test_programs_are_made_while_others_run(small):
    model, _ = small
    dynamic = made('CifarResNet')
    sizes = [16, 17, 18, 19]
    inputs = [torch.randn(1, 3, size, size) for size in sizes]
    want = [model(x).detach() for x in inputs]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                dynamic.backbone._programs.clear()
                got = list(pool.map(dynamic, inputs * 4))
                programs = dynamic.backbone._programs.values()
                assert not [p for p in programs if isinstance(p, str)]
                for x, y in zip(got, want * 4):
                    torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    finally:
        sys.setswitchinterval(before)


class Bare(CifarResNet):
    """A backbone that returns its only map."""

    def forward(self, x):
        return super().forward(x)[0]


class Several(nn.Module):
    """A head with two outputs."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(32, 3), nn.Linear(32, 4)

    def forward(self, feats):
        return self.one(feats[-1]), self.two(feats[-1])


@pytest.mark.usefixtures('all_sites_pay')
@pytest.mark.parametrize('way', WAYS)
def test_outputs_keep_their_structure(small, way):
    model, images = small
    model = copy.deepcopy(model)
    model.backbone.backbone.__class__ = Bare
    dynamic = dynamic_of(model, images[:1], way)
    want = model.backbone(images)
    got = dynamic.backbone(images)
    assert isinstance(want, torch.Tensor)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures('all_sites_pay')
@pytest.mark.parametrize('way', WAYS)
def test_heads_may_have_several_outputs(small, way):
    model, images = small
    model = copy.deepcopy(model)
    model.head = Several()
    dynamic = dynamic_of(model, images[:1], way)
    torch.testing.assert_close(
        dynamic(images), model(images), atol=1e-4, rtol=1e-4
    )


class Reading(Several):
    """A head whose code depends on the numbers of an image.

    The maps are never negative: rounding does not decide.
    """

    def forward(self, feats):
        scores = super().forward(feats)
        return scores[::-1] if feats[-1].sum() < 0 else scores


@pytest.mark.usefixtures('all_sites_pay')
@pytest.mark.parametrize('head, passes', [(Several(), 1), (Reading(), 2)])
def test_backbone_and_head_are_captured_in_one_pass(
    small, head, passes, monkeypatch
):
    """Without the head, if it is no graph."""
    model, images = small
    model = copy.deepcopy(model)
    model.head = head.eval()
    captured = []
    monkeypatch.setattr(
        modelling,
        'CapturedNetwork',
        lambda *args: captured.append(args) or CapturedNetwork(*args),
    )
    dynamic = to_dynamic(model, images)
    assert dynamic.plan.executor == 'program', dynamic.plan.executor_why
    assert len(captured) == passes
    assert dynamic.backbone.program_of(images) is not None
    assert (dynamic.program(images) is not None) == (passes == 1)
    torch.testing.assert_close(
        one_by_one_answers(dynamic, images),
        one_by_one_answers(model, images),
        atol=1e-4,
        rtol=1e-4,
    )
    assert len(captured) == passes


@pytest.mark.usefixtures('all_sites_pay')
def test_a_backbone_alone_is_tried_with_constant_masks(small, monkeypatch):
    """Where the head is no program."""
    model, images = small
    model = copy.deepcopy(model)
    model.head = Reading().eval()

    def wrong(*args):
        return {node: x + 1 for node, x in interpret(*args).items()}

    monkeypatch.setattr(mask_check, 'interpret', wrong)
    dynamic = to_dynamic(model, images, backend='torch')
    assert dynamic.plan.executor == 'modules'
    assert 'every_other mask' in dynamic.plan.executor_why


@torch.no_grad()
def one_by_one_answers(model, images):
    return [model(image) for image in images.split(1)]


def test_the_model_itself_is_unchanged(small):
    model, images = small
    model = copy.deepcopy(model).train()
    before = copy.deepcopy(model.state_dict())
    dynamic = to_dynamic(model, images)
    assert model.training
    assert not dynamic.training
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    own = {p.data_ptr() for p in dynamic.parameters()}
    assert not own & {p.data_ptr() for p in model.parameters()}


@needs_kernel
def test_torchs_default_dtype_does_not_matter(small):
    _, images = small
    dynamic = made('CifarResNet', 'kernel')
    want = dynamic(images[:1])
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(dynamic(images[:1]), want)
    finally:
        torch.set_default_dtype(torch.float32)


def test_copies_work(small):
    _, images = small
    dynamic = made('CifarResNet')
    want = dynamic(images)
    assert torch.equal(copy.deepcopy(dynamic)(images), want)
    assert torch.equal(pickle.loads(pickle.dumps(dynamic))(images), want)


def test_without_gates_awake_it_is_the_dense_network(small):
    model, images = small
    dynamic = made('CifarResNet')
    with torch.no_grad():
        want = model.backbone.backbone(images)
        got = dynamic.backbone.backbone(images)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_a_plan_is_stored_and_applied(small, tmp_path, monkeypatch):
    model, images = small
    first = to_dynamic(model, images)
    plan = first.plan
    names = list(plan.sites)
    for number, name in enumerate(names):
        plan.sites[name].executed = ('dynamic', 'dense')[number % 2]
    plan.batch = 'batch'
    plan.save(tmp_path / 'deep' / 'plan.json')
    loaded = DynamicPlan.load(tmp_path / 'deep' / 'plan.json')
    assert loaded == plan
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['plan.json']
    monkeypatch.setattr('fgc_mm.deploy.dynamic.build.calibrate', None)
    second = to_dynamic(model, plan=loaded)
    report = second.dynamic_report()['sites']
    assert [report[name]['executed'] for name in names] == [
        ('dynamic', 'dense')[number % 2] for number in range(len(names))
    ]
    assert list(second.backbone.dense) == names[1::2]
    assert second.backbone.batch == 'batch'
    want = one_by_one(model, images)
    torch.testing.assert_close(second(images), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(executor='xyz'), "executor='xyz'"),
        (dict(batch=3), 'batch=3'),
        (dict(image_shape=(3, 16)), r'image_shape=\(3, 16\)'),
        (dict(image_shape=(3, 16, 0)), 'image_shape='),
    ],
)
def test_a_plan_with_invalid_values_is_refused(small, change, message):
    model, _ = small
    plan = made('CifarResNet').plan
    with pytest.raises(FGCError, match=message):
        to_dynamic(model, plan=dataclasses.replace(plan, **change))
    next(iter(plan.sites.values())).executed = 'perhaps'
    with pytest.raises(FGCError, match="executed='perhaps'"):
        to_dynamic(model, plan=plan)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"sites": 3}', 'x'])
def test_a_broken_plan_is_refused(tmp_path, text):
    path = tmp_path / 'plan.json'
    path.write_text(text)
    with pytest.raises(FGCError, match='is not a plan'):
        DynamicPlan.load(path)
    with pytest.raises(FGCError, match='cannot be read'):
        DynamicPlan.load(tmp_path / 'none.json')


def test_bad_input_is_one_sentence(small):
    model, images = small
    dynamic, plan = made('CifarResNet'), made('CifarResNet').plan
    plan.sites.pop(next(iter(plan.sites)))
    with pytest.raises(FGCError, match='the plan and the model differ'):
        to_dynamic(model, plan=plan)
    with pytest.raises(FGCError, match='neither images nor a plan'):
        to_dynamic(model)
    with pytest.raises(FGCError, match='at least one image'):
        to_dynamic(model, images[0])
    infinite = images.clone()
    infinite[1, 0, 2, 3] = float('inf')
    with pytest.raises(FGCError, match='image 1 of images has nan or inf'):
        to_dynamic(model, infinite)
    with pytest.raises(FGCError, match='has no gates'):
        to_dynamic(nn.Conv2d(3, 3, 1), images)
    with pytest.raises(FGCError, match='dynamic already'):
        to_dynamic(dynamic, images)
    with pytest.raises(FGCError, match='in evaluation only'):
        dynamic.train()
    with pytest.raises(FGCError, match='does not compute'):
        dynamic.backbone.forward_gated(images, keep_activation=True)


def test_another_shape_is_right_and_noted(small):
    model, _ = small
    dynamic = made('CifarResNet')
    assert dynamic.dynamic_report()['notes'] == []
    other = torch.randn(2, 3, 21, 13)
    want = one_by_one(model, other)
    torch.testing.assert_close(dynamic(other), want, atol=1e-4, rtol=1e-4)
    (note,) = dynamic.dynamic_report()['notes']
    assert '3x21x13' in note
    assert 'were not in the calibration' in note


@needs_kernel
def test_a_model_that_differs_is_refused(small, monkeypatch):
    model, images = small
    made('CifarResNet', 'kernel')  # not wrong by itself
    run = KernelProgram.run
    late = []

    def wrong(self, images, decisions=True):
        outputs, decided = run(self, images, decisions)
        if late:
            outputs = plus_one(outputs)
        return outputs, decided

    def plus_one(outputs):
        if isinstance(outputs, torch.Tensor):
            return outputs + 1
        return tuple(output + 1 for output in outputs)

    monkeypatch.setattr(KernelProgram, 'run', wrong)
    monkeypatch.setattr(
        building, 'calibrate', lambda *_: late.append('from now on')
    )
    with pytest.raises(FGCError, match='so it is refused'):
        to_dynamic(model, images)


@needs_kernel
@pytest.mark.usefixtures('all_sites_pay')
def test_the_modules_run_where_a_program_is_wrong(small, monkeypatch):
    model, images = small
    run = KernelProgram.run

    def wrong(self, images, decisions=True):
        outputs, decided = run(self, images, decisions)
        return tuple(output + 1 for output in outputs), decided

    monkeypatch.setattr(KernelProgram, 'run', wrong)
    dynamic = to_dynamic(model, images)
    report = dynamic.dynamic_report()
    assert report['executor'] == 'modules'
    assert 'gives other results' in report['executor_why']
    assert {s['executed'] for s in report['sites'].values()} == {'dense'}
    want = one_by_one(model, images)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('planned', [False, True])
def test_the_modules_run_where_one_way_is_no_program(
    small, monkeypatch, planned
):
    """A plan's sites, all masked, or the network without gates."""
    model, images = small
    plan = made('CifarResNet', 'torch').plan if planned else None
    if planned:
        for site in plan.sites.values():
            site.executed = 'dense'
    program = DynamicBackbone.program

    def refused(self, image, following=(), gated=True, dense=None):
        all_masked = bool(self.dense if dense is None else dense)
        if all_masked or not gated:
            return 'it is no program'
        return program(self, image, following, gated, dense)

    monkeypatch.setattr(DynamicBackbone, 'program', refused)
    dynamic = to_dynamic(model, images, plan, backend='torch')
    report = dynamic.dynamic_report()
    assert report['executor'] == 'modules'
    assert report['executor_why'] == 'it is no program'
    want = one_by_one(model, images)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


def test_no_site_skips_where_it_does_not_pay(small, monkeypatch):
    model, images = small
    monkeypatch.setattr(calibration, '_is_faster', lambda *_: False)
    dynamic = to_dynamic(model, images)
    sites = dynamic.dynamic_report()['sites'].values()
    assert {s['executed'] for s in sites} == {'dense'}
    assert all(' ms with all of them masked' in s['why'] for s in sites)
    for site in sites:
        assert site['plain_ms'] > 0 and site['dense_ms'] > 0
    assert dynamic.plan.batch_ms == {}
    want = one_by_one(model, images)
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


def test_the_whole_network_overrules_its_sites(small, monkeypatch):
    model, images = small

    def pays(*_):
        # yes for every site, no for the network
        return sys._getframe(1).f_code.co_name == '_site_report'

    def seconds(run, choose, choices, measure=calibration._median_seconds):
        measure(run, choose, choices)
        return [0.012 * len(images), 0.006 * len(images)]  # of all images

    monkeypatch.setattr(calibration, '_is_faster', pays)
    monkeypatch.setattr(calibration, '_median_seconds', seconds)
    dynamic = to_dynamic(model, images)
    sites = dynamic.dynamic_report()['sites'].values()
    assert {s['executed'] for s in sites} == {'dense'}
    said = 'but the whole network takes 12.00 ms with skipping and 6.00 ms wit'
    assert all(said in s['why'] for s in sites)
    assert len(dynamic.backbone.dense) == len(dynamic.backbone.sites)


def test_batches_are_not_timed_where_the_modules_run(small, monkeypatch):
    model, images = small

    def pays(*_):
        # yes for every site and the network, no for the program
        return sys._getframe(1).f_code.co_name != '_choose_executor'

    monkeypatch.setattr(calibration, '_is_faster', pays)
    plan = to_dynamic(model, images, backend='torch').plan
    assert plan.executor == 'modules'
    assert plan.batch_ms == {}


@needs_kernel
def test_sites_and_batches_may_be_switched(small):
    _, images = small
    backbone = made('CifarResNet').backbone
    program = backbone.program_of(images)
    assert backbone.program_of(images) is program
    backbone.dense = {backbone.sites[0].name: 'a try'}
    assert backbone.program_of(images) is not program
    backbone.batch = 'batch'
    assert backbone.program_of(images) is None
    assert backbone.program_of(images[:1]) is not None


@pytest.mark.usefixtures('all_sites_pay')
@needs_kernel
@pytest.mark.parametrize('name', ['ResNet-18', 'MobileNetV3', 'ViT'])
def test_bfloat16_is_near_the_masked_model(name, tmp_path):
    """The stored plan requests it again."""
    model, images = masked(name)
    dynamic = to_dynamic(model, images, precision='bfloat16')
    half = has_bfloat16()
    expected = 'bfloat16' if half else 'float32'
    assert dynamic.dynamic_report()['precision'] == expected
    # several at once may run masked, in float32
    want, got = one_by_one(model, images), one_by_one(dynamic, images)
    gaps = (want - got).abs().amax(1) / want.abs().max()
    # a gate may decide differently on one of the images
    assert gaps.median() < (0.03 if half else 1e-4)
    dynamic.plan.save(tmp_path / 'plan.json')
    plan = DynamicPlan.load(tmp_path / 'plan.json')
    again = to_dynamic(model, images, plan=plan)
    assert again.dynamic_report()['precision'] == expected
    assert torch.equal(one_by_one(again, images), got)


def test_a_precision_that_there_is_not_is_one_sentence(small):
    model, images = small
    for arguments, text in (
        (dict(precision='half'), "precision='half' is none of"),
        (dict(precision='bfloat16', backend='torch'), 'torch computes here'),
    ):
        with pytest.raises(FGCError, match=text):
            to_dynamic(model, images, **arguments)


@pytest.mark.parametrize('number', [float('inf'), float('nan')])
def test_outputs_that_are_no_numbers_differ(number):
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[number, 2.0]])
    assert difference([one], [other]) and difference([other], [one])
    assert not difference([one], [one])


@pytest.mark.parametrize('option', ['backend', 'precision'])
def test_unknown_names_are_refused_on_every_device(small, option):
    model = copy.deepcopy(small[0]).to('meta')
    with pytest.raises(FGCError, match=f"{option}='foo' is none of"):
        to_dynamic(model, small[1].to('meta'), **{option: 'foo'})


def test_it_runs_in_torch_without_a_compiler(small, monkeypatch):
    model, images = small

    def missing():
        raise LibraryError('g++ is not there; install it.')

    monkeypatch.setattr(building, 'load_library', missing)
    building._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r'g\+\+ is not there'):
        dynamic = to_dynamic(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        got = dynamic(images)
    assert dynamic.dynamic_report()['backend'] == 'torch'
    want = one_by_one(model, images)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_an_accelerator_it_is_masked_and_the_report_has_the_reason(small):
    model, images = small
    model, images = copy.deepcopy(model).cuda(), images.cuda()
    dynamic = to_dynamic(model, images)
    report = dynamic.dynamic_report()
    assert report['executor'] == 'modules'
    for site in report['sites'].values():
        assert site['executed'] == 'dense'
        assert 'on the CPU only' in site['why']
    torch.testing.assert_close(dynamic(images), model(images))


def test_the_report_has_the_precision_on_an_accelerator(small, monkeypatch):
    # tensors of the meta device have no values
    monkeypatch.setattr(building, 'check_images', lambda images: None)
    for dtype in (torch.float32, torch.float16):
        model = copy.deepcopy(small[0]).to('meta', dtype)
        dynamic = to_dynamic(model, small[1].to('meta', dtype))
        assert f'torch.{dynamic.dynamic_report()["precision"]}' == str(dtype)
