"""What a dynamic model cannot be, or be made of, is one sentence."""

import copy
import multiprocessing

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.errors import FGCError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibrate, 'REPEATS', 1)
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)


@pytest.fixture(scope='module')
def masked(classifier, pictures):
    """A masked model and images."""
    return classifier()[0], pictures(16, 3)


@pytest.fixture(scope='module')
def dynamic(masked):
    return to_dynamic(*masked, backend='torch')


TRACERS = {
    'torch.jit.trace': lambda m, x: torch.jit.trace(m, x),
    'ONNX': lambda m, x: torch.onnx.export(m, (x,), dynamo=False),
    'torch.export': lambda m, x: torch.export.export(m, (x,), strict=False),
    'torch.jit.script': lambda m, _: torch.jit.script(m),
    'symbolic_trace': lambda m, _: torch.fx.symbolic_trace(m),
    'meta': lambda m, x: m(x.to('meta')),
    'make_fx': lambda m, x: make_fx(m)(x),
    'vmap': lambda m, x: torch.func.vmap(lambda one: m(one[None])[0])(x),
    'grad': lambda m, x: torch.func.vjp(m, x),
    'jvp': lambda m, x: torch.func.jvp(m, (x,), (x,)),
}


def in_a_child(trace, part, image):
    """Restores torch.compile's state, which a failed export leaves changed."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def run():
        try:
            trace(part, image)
        except FGCError as error:
            writer.send(str(error))

    child = multiprocessing.get_context('fork').Process(target=run)
    child.start()
    writer.close()
    text = reader.recv()
    child.join()
    raise FGCError(text)


@pytest.mark.parametrize('tracer', TRACERS)
def test_tracers_are_refused(masked, dynamic, tracer):
    image = masked[1][:1]
    parts = [dynamic]
    if tracer != 'symbolic_trace':  # it calls the backbone with values
        parts.append(dynamic.backbone)
    for part in parts:
        with pytest.raises(FGCError, match='cannot record a dynamic model'):
            if tracer in ('torch.export', 'ONNX'):
                in_a_child(TRACERS[tracer], part, image)
            TRACERS[tracer](part, image)


def test_fake_tensors_are_refused(masked, dynamic):
    from torch._subclasses import FakeTensorMode

    image = masked[1][:1].clone()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(image)
        with pytest.raises(FGCError, match='FakeTensor'):
            dynamic(fake)


@pytest.mark.parametrize('kind', ['dynamic', 'prepared', 'torchao'])
def test_quantised_models_are_refused(masked, kind):
    model, images = copy.deepcopy(masked[0]), masked[1]
    if kind == 'dynamic':
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    elif kind == 'prepared':
        conv = model.backbone.backbone.conv1
        conv.register_module(
            'observer', torch.ao.quantization.MinMaxObserver()
        )
    else:
        kind = type('Quantised', (nn.Parameter,), {'__module__': 'torchao.x'})
        model.head.fc.weight = kind(model.head.fc.weight.data)
    with pytest.raises(FGCError, match='float layers only'):
        to_dynamic(model, images)


def first_of(model):
    """The convs of a block, and the head's linear layer."""
    block = model.backbone.backbone.layer1[0]
    return block.conv1, block.conv2, model.head.fc


WRAPPERS = {
    'weight_norm': weight_norm,
    'spectral_norm': spectral_norm,
    'prune': lambda layer: prune.l1_unstructured(layer, 'weight', 0.3),
    'parametrized': parametrizations.weight_norm,
}


@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_weights_that_are_computed(masked, wrapper):
    """After a backward pass they belong to a graph of gradients."""
    model, images = copy.deepcopy(masked[0]), masked[1]
    for layer in first_of(model):
        WRAPPERS[wrapper](layer)
    model(images).sum().backward()
    with torch.no_grad():  # the weight of the last pass is out of date
        for parameter in model.backbone.backbone.layer1[0].parameters():
            parameter.mul_(1.5)
    dynamic = to_dynamic(model, images, backend='torch')
    model.eval()
    with torch.no_grad():
        want = torch.cat([model(image) for image in images.split(1)])
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)
    other = copy.deepcopy(model.state_dict())
    for name, values in other.items():
        if 'layer1.0' in name and values.is_floating_point():
            values.mul_(1.1)
    model.load_state_dict(other)
    dynamic.load_state_dict(other)
    with torch.no_grad():
        want = torch.cat([model(image) for image in images.split(1)])
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_a_gate_whose_weight_is_computed(masked):
    model, images = copy.deepcopy(masked[0]), masked[1]
    weight_norm(model.backbone.gates['layer1-0-conv1'].squeeze)
    dynamic = to_dynamic(model, images, backend='torch')
    with torch.no_grad():
        want = torch.cat([model(image) for image in images.split(1)])
    torch.testing.assert_close(dynamic(images), want, atol=1e-4, rtol=1e-4)
