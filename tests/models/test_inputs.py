"""Images and networks that are not as usual: right, or one sentence."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone, GatedImageClassifier

GATE = dict(type='fgc_mm.BinaryConcreteGate')


class Bare(nn.Module):
    """Returns a tensor, which is no tuple."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.three = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return self.three(self.middle(self.one(x).relu()))

    def middle(self, x):
        return self.two(x).relu()


class Tuple(Bare):
    def forward(self, x):
        return (super().forward(x),)


def classifier(backbone):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=GatedBackbone(backbone, GATE),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
        )
    ).eval()


@pytest.fixture
def images():
    return torch.randn(
        3, 3, 16, 16, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture
def pair():
    usual = classifier(Tuple())
    bare = classifier(Bare())
    bare.load_state_dict(usual.state_dict())
    return usual, bare


@torch.no_grad()
def test_a_bare_tensor_is_classified_as_a_tuple_of_one(pair, images, tiny):
    usual, bare = pair
    want = usual(images)
    assert want.shape == (3, 5) and torch.equal(bare(images), want)
    assert torch.equal(PlainForward(bare)(images), want)
    for ours, theirs in zip(
        bare(images, mode='predict'), usual(images, mode='predict')
    ):
        assert torch.equal(ours.pred_score, theirs.pred_score)
    samples = tiny.samples([0, 1, 2])
    torch.manual_seed(1)
    loss = usual.train()(images, samples, mode='loss')
    torch.manual_seed(1)
    assert loss == bare.train()(images, samples, mode='loss')


@torch.no_grad()
@pytest.mark.parametrize('executor', ['program', 'modules'])
def test_a_bare_tensor_in_a_dynamic_model(pair, images, executor):
    usual, bare = pair
    dynamic = to_dynamic(bare, images[:1])
    dynamic.backbone.executor = executor
    for batch in ('loop', 'batch'):
        dynamic.backbone.batch = batch
        torch.testing.assert_close(dynamic(images), usual(images))
        feats, _ = dynamic._extract_gated(images)
        assert isinstance(feats, tuple)
        scores = [s.pred_score for s in dynamic(images, mode='predict')]
        want = [s.pred_score for s in usual(images, mode='predict')]
        torch.testing.assert_close(scores, want)


TYPES = [torch.float64, torch.bfloat16, torch.float16, torch.uint8]


@pytest.mark.parametrize('dtype', TYPES)
def test_images_of_another_type_are_named(images, dtype):
    model = classifier(Tuple())
    named = rf'^the images are {dtype} and the weights of Tuple torch\.float32'
    for mode in ('tensor', 'predict'):
        with pytest.raises(FGCError, match=named):
            model(images.to(dtype), mode=mode)
    dynamic = to_dynamic(model, images[:1])
    with pytest.raises(FGCError, match=named):
        dynamic(images.to(dtype))


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_weights_of_another_type(images, dtype):
    model = classifier(Tuple()).to(dtype)
    assert model(images.to(dtype)).dtype is dtype
    with pytest.raises(FGCError, match=f'float32 and the weights .* {dtype}'):
        model(images)
    # the types agree in mixed precision, and other errors stay as they are
    with torch.autocast('cpu', torch.bfloat16):
        assert classifier(Tuple())(images).dtype is torch.bfloat16
    with pytest.raises(RuntimeError, match='shapes'):
        model(images[:, :2].to(dtype))


@pytest.mark.filterwarnings('ignore')
def test_a_quantized_network_is_named(images):
    mapping = get_default_qconfig_mapping()
    prepared = quantize_fx.prepare_fx(Bare().eval(), mapping, (images,))
    prepared(images)
    assert GatedBackbone(prepared, GATE).sites  # still floating point
    quantized = quantize_fx.convert_fx(prepared)
    with pytest.raises(FGCError, match=r'^one is quantized .* before it is'):
        GatedBackbone(quantized, GATE)


class Depends(Bare):
    """Leaves a layer out where the images are large."""

    def forward(self, x):
        inner = self.one(x).relu()
        if x.abs().max() < 100:
            inner = self.middle(inner)
        return self.three(inner)


def test_layers_that_depend_on_the_images_are_named(images):
    model = GatedBackbone(Depends(), GATE, sites=['two']).eval()
    model(images)
    with pytest.raises(FGCError, match=r'^two had.* depend on the values'):
        model(1000 * images)
    model.backbone.forward = lambda x: model.backbone.one(x)
    with pytest.raises(FGCError, match=r'^two did not .* on the values of'):
        model(images)


class DependsOnSign(Bare):
    def forward(self, x):
        inner = self.one(x).relu()
        return self.three(self.middle(inner) if x.mean() > 0 else inner)


def test_a_search_names_a_layer_that_runs_for_some_images():
    with pytest.raises(FGCError, match=r'^two of Depends.* for some images'):
        GatedBackbone(DependsOnSign(), GATE)


def test_a_module_that_was_replaced_is_named(images):
    model = GatedBackbone(Bare(), GATE, sites=['two']).eval()
    model.backbone.two = nn.Conv2d(8, 8, 3, padding=1)
    model.backbone.three = nn.Conv2d(8, 8, 3, padding=1)
    with pytest.raises(FGCError, match=r'^two did not .* has replaced it'):
        model(images)


class Around(nn.Module):
    """As FSDP and gradient checkpointing wrap a layer; or an adapter."""

    def __init__(self, inner, beside=None):
        super().__init__()
        self.inner, self.beside = inner, beside

    def forward(self, x):
        y = self.inner(x)
        return y if self.beside is None else y + self.beside(x)


@pytest.mark.parametrize('change', [
    copy.deepcopy,
    lambda _: nn.Identity(),
    lambda layer: Around(layer, nn.Conv2d(8, 8, 3, padding=1)),
    lambda layer: Around(layer, nn.ConvTranspose2d(8, 8, 1)),
])  # fmt: skip
@pytest.mark.parametrize('when', ['first pass', 'later'])
def test_a_replaced_consumer_is_named(change, when, images):
    """It may read the channels that the gates closed."""
    model = GatedBackbone(Bare(), GATE, sites=['one']).eval()
    if when == 'later':
        model(images)
    model.backbone.two = change(model.backbone.two)
    with pytest.raises(FGCError, match=r'^two may read .* has replaced it'):
        model(images)


@pytest.mark.parametrize('change', [
    Around, nn.utils.parametrizations.weight_norm,
    lambda layer: torch.compile(layer, backend='eager'),
])  # fmt: skip
def test_a_wrapped_consumer_is_masked(change, images):
    model = GatedBackbone(Bare(), GATE, sites=['one']).eval()
    wanted = model(images)
    model.backbone.two = change(model.backbone.two)
    torch.testing.assert_close(model(images), wanted)


class Branches(Bare):
    """Two consumers of one site."""

    def forward(self, x):
        inner = self.one(x).relu()
        outer = self.three(inner)
        return outer + self.two(inner) if hasattr(self, 'two') else outer


def test_every_consumer_is_looked_at(images):
    model = GatedBackbone(Branches(), GATE, sites=['one']).eval()
    model(images)
    layer = model.backbone.three
    model.backbone.three = copy.deepcopy(layer)
    with pytest.raises(FGCError, match=r'^three may read'):
        model(images)
    model.backbone.three = layer
    del model.backbone.two  # one that is removed reads nothing
    model(images)


def test_sites_whose_gates_would_have_one_name_are_refused():
    net = nn.Sequential()
    net.add_module('a-b', nn.Conv2d(3, 8, 3))
    inner = nn.Sequential()
    inner.add_module('b', nn.Conv2d(8, 8, 3))
    net.add_module('a', inner)
    net.add_module('last', nn.Conv2d(8, 4, 3))
    with pytest.raises(FGCError, match=r'^the layers a-b and a.b would'):
        GatedBackbone(net, GATE)


@pytest.mark.parametrize('gate_losses', ['abc', ['abc'], 3])
def test_gate_losses_that_are_no_configs(gate_losses):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    backbone = GatedBackbone(net, dict(type='fgc_mm.FBSGate'))
    with pytest.raises(FGCError, match='is not a list of configs'):
        GatedImageClassifier(backbone, gate_losses=gate_losses)


def test_a_gate_that_is_no_config():
    with pytest.raises(FGCError, match="gate='FBSGate' is not the config"):
        GatedBackbone(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
            'FBSGate',
        )


class Attributes(nn.Module):
    """Layers with names that a ModuleDict has itself."""

    def __init__(self):
        super().__init__()
        self.values = nn.Conv2d(3, 8, 3)
        self.items = nn.Conv2d(8, 6, 3)
        self.last = nn.Conv2d(6, 4, 3)

    def forward(self, x):
        return (self.last(self.items(self.values(x).relu()).relu()),)


def test_layers_with_names_of_attributes():
    gated = GatedBackbone(Attributes(), dict(type='fgc_mm.FBSGate'))
    assert [site.name for site in gated.sites] == ['values', 'items']
    assert list(gated.gates) == ['values-', 'items-']
    again = GatedBackbone(Attributes(), dict(type='fgc_mm.FBSGate'))
    again.load_state_dict(gated.state_dict())
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(gated.eval()(x)[0], again.eval()(x)[0])
