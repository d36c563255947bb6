"""Modes, gradients, types and outputs that callers may have."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fgc_mm.deploy import (
    compact,
    firing_statistics,
    set_keep_ratio,
    to_dynamic,
)
from fgc_mm.deploy.bundle.meta import _classes
from fgc_mm.deploy.compaction.static_pruning import prune_static
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.deploy.dynamic.model import MODULES, PROGRAM
from fgc_mm.deploy.export.gathered import gathered
from fgc_mm.deploy.export.program import export_program
from fgc_mm.deploy.graph.network import program_of
from fgc_mm.deploy.loading import _batches
from fgc_mm.errors import FGCError
from fgc_mm.gates import GateDecision
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from tests.deploy.conftest import GATE, stir, varied


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibrate, 'REPEATS', 1)
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)


class Net(nn.Module):
    """Two convs, and what is done with their output."""

    def __init__(self, end=lambda x: (x,), begin=lambda x: x):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.begin, self.end = begin, end

    def forward(self, x):
        x = self.first(self.begin(x)).relu()
        return self.end(self.second(x))


def backbone_of(*ends, **options):
    torch.manual_seed(0)
    backbone = GatedBackbone(Net(*ends, **options), dict(GATE)).eval()
    stir(backbone)
    return backbone


def test_images_of_a_data_set_leave_gradients_on(classifier):
    model, _ = classifier()
    image = torch.zeros(3, 16, 16)
    batches = _batches([dict(inputs=image)] * 4, model, 4, 2)
    assert not next(batches).requires_grad
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert len(list(batches)) == 1
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    'end, program',
    {
        'a size': (lambda x: (x, x.shape[2:]), False),
        'a number': (lambda x: [x, 3], False),
        'booleans': (lambda x: (x, x > 0), False),
        'indices': (lambda x: (x, x.argmax(1)), False),
        'doubles': (lambda x: (x.double(),), False),
        'nothing': (lambda x: (x, x[:, :0]), None),
        'rows of an image': (lambda x: (x.flatten(0, 1)[:, None],), False),
        'a root': (lambda x: ((x.abs() + 1).sqrt(),), True),
    }.values(),
)
def test_outputs_are_those_of_the_masked_network(end, program):
    masked, images = backbone_of(end), varied(12, 3)
    dynamic = to_dynamic(masked, images)
    if program is not None:
        executor = dynamic.dynamic_report()['executor']
        assert executor == (PROGRAM if program else MODULES)
    for wanted, got in zip(masked(images), dynamic(images)):
        assert type(wanted) is type(got)
        if isinstance(wanted, torch.Tensor):
            assert wanted.dtype == got.dtype
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('begin', [torch.sqrt, lambda x: (x + 1).log()])
def test_a_network_of_positive_images(begin):
    images = varied(12, 3).abs()
    report = to_dynamic(
        backbone_of(begin=begin), images, backend='torch'
    ).dynamic_report()
    assert report['executor'] == PROGRAM, report


@pytest.mark.parametrize(
    'end',
    [
        lambda x: (x.index_select(-1, torch.tensor([2, 0, 1])),),
        lambda x: (1 - x,),
        lambda x: (torch.rsub(x, 2, alpha=3),),
        lambda x: (torch.maximum(x, torch.tensor(0.1)),),
        lambda x: (torch.minimum(x, torch.tensor(0.1)),),
    ],
)
def test_operations_of_the_runtime(end):
    masked, images = backbone_of(end), varied(12, 3)
    dynamic = to_dynamic(masked, images)
    program = dynamic.program(images[:1])
    assert not isinstance(program, str) and not program.fallbacks
    torch.testing.assert_close(
        program.run(images)[0][0], masked(images)[0], rtol=1e-3, atol=1e-4
    )


def test_a_mean_over_everything_is_computed_by_torch():
    masked, images = backbone_of(lambda x: (x * x.mean((0, 1, 2, 3)),)), None
    images = varied(12, 1)
    program = to_dynamic(masked, images).program(images)
    assert isinstance(program, str) or program.fallbacks


def test_a_step_in_torch_under_autocast():
    masked = backbone_of(lambda x: (x.cumsum(3) @ x.transpose(2, 3),))
    images = varied(12, 2)
    dynamic = to_dynamic(masked, images)
    wanted = dynamic(images)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(dynamic(images)[0], wanted)


def test_a_refused_conversion_changes_nothing(classifier, pictures):
    model, _ = classifier()
    model.data_preprocessor.register_buffer('mean', torch.ones(3))
    dynamic = to_dynamic(model, pictures(16, 2))
    for convert in (
        lambda: dynamic.double(),
        lambda: dynamic.half(),
        lambda: dynamic.to(torch.float64),
        lambda: dynamic.to('meta'),
    ):
        with pytest.raises(FGCError, match='cannot be moved'):
            convert()
        preprocessor = dynamic.data_preprocessor
        assert preprocessor.mean.dtype == torch.float32
        assert preprocessor.mean.device == torch.device('cpu')
        assert preprocessor.device == torch.device('cpu')
    assert dynamic.to('cpu') is dynamic and dynamic.float() is dynamic


class Doubled(GatedImageClassifier):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs) * 2


def test_a_classifier_with_code_of_its_own_is_refused(classifier, pictures):
    model, _ = classifier()
    model.__class__ = Doubled
    with pytest.raises(FGCError, match='Doubled has a predict of its own'):
        to_dynamic(model, pictures(16, 2))
    model.backbone = to_dynamic(model.backbone, pictures(16, 2))


def test_a_plan_of_another_type_is_refused(classifier):
    with pytest.raises(FGCError, match='plan is a str'):
        to_dynamic(classifier()[0], plan='plan.json')


def test_the_precision_of_modules(classifier, pictures):
    model = classifier()[0].double()
    report = to_dynamic(model, pictures(16, 2)).dynamic_report()
    assert report['precision'] == 'float64'


def test_a_model_in_training_is_not_changed(classifier, pictures):
    model, settings = classifier()
    images = pictures(16, 8)
    firing = firing_statistics(model, [images])
    model.train()
    model.backbone.gates.eval()
    modes = [module.training for module in model.modules()]
    state = {key: x.clone() for key, x in model.state_dict().items()}
    compact(model, firing, settings, images)
    gathered(model, images)
    export_program(model, images)
    assert modes == [module.training for module in model.modules()]
    for key, x in model.state_dict().items():
        assert torch.equal(x, state[key]), key


def test_a_network_in_training_is_pruned_as_in_evaluation(
    classifier, pictures
):
    model, _ = classifier()
    model.backbone = model.backbone.backbone
    images = pictures(16, 4)
    wanted = prune_static(model, 'group_norm', 0.4, images).model(images)
    model.train()
    got = prune_static(model, 'group_norm', 0.4, images).model(images)
    assert model.backbone.training and torch.equal(wanted, got)


class PeakGate(nn.Module):
    """Decides by the largest values of a map."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, x):
        logits = self.linear(x.amax((2, 3)))
        mask = (logits > 0).float()
        return GateDecision(logits, logits.sigmoid(), mask)


@pytest.mark.parametrize('kind', [PeakGate, 'fgc_mm.FBSGate'])
def test_gathered_gates_that_see_maps(kind):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.SiLU(),
        nn.Conv2d(8, 4, 3),
    )  # fmt: skip
    masked = GatedBackbone(net, dict(type=kind)).eval()
    images = varied(12, 8)
    copied, plan = gathered(masked, images[:1])
    assert 'masked' not in plan.values()
    for image in images.split(1):
        torch.testing.assert_close(
            copied(image)[0], masked(image)[0], rtol=1e-4, atol=1e-5
        )


def test_types_of_data_sets_as_classes():
    from mmpretrain.datasets import CIFAR10

    cfg = Config(
        dict(test_dataloader=dict(dataset=dict(type=CIFAR10, pipeline=[])))
    )
    assert _classes(cfg, {}, 10)[0] == 'airplane'


def test_nan_is_refused_before_a_model_is_changed(classifier, pictures):
    model, _ = classifier()
    images = pictures(16, 8)
    images[3, 0, 2, 2] = torch.nan
    state = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(FGCError, match='image 3 of images has nan'):
        set_keep_ratio(model, images, 0.5, fresh=True)
    for key, x in model.state_dict().items():
        assert torch.equal(x, state[key]), key


def test_statistics_can_be_compared_and_stored(classifier, pictures):
    firing = firing_statistics(classifier()[0], [pictures(16, 8)])
    assert firing[0] == firing[0] and firing[0] != firing[1]
    assert len({*firing}) == len(firing)


@pytest.mark.parametrize('what', ['model', 'image'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_programs_are_made_in_float32(classifier, what, dtype):
    model, _ = classifier()
    image = torch.zeros(1, 3, 16, 16)
    if what == 'model':
        model = model.to(dtype)
    else:
        image = image.to(dtype)
    with pytest.raises(FGCError, match=f'{dtype} cannot .* in float32'):
        program_of(model, image)


def test_programs_are_made_on_the_cpu(classifier):
    model, _ = classifier()
    with pytest.raises(FGCError, match='the model is on meta'):
        program_of(model.to('meta'), torch.zeros(1, 3, 16, 16))
