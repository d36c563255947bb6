"""Several threads and several models at once have the same results."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fgc_mm.models import GatedBackbone
from fgc_mm.registry import MODELS

GATE = dict(type='fgc_mm.BinaryConcreteGate')
NETWORKS = {
    'chain': dict(type='fgc_mm.CifarResNet', base_channels=4),
    'squeeze-excite': dict(type='MobileNetV3', arch='small_050'),
    'concatenated': dict(type='ShuffleNetV2', widen_factor=0.5),
}


@pytest.fixture
def busy_threads():
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def answers_of(model, image):
    with torch.no_grad():
        outputs, records = model.forward_gated(image, keep_activation=True)
    values = [t for r in records for t in (r.mask, r.logits, r.activation)]
    return [*outputs, *values]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures('busy_threads')
@pytest.mark.parametrize('name', NETWORKS)
def test_threads_have_the_results_of_one_thread(name, well_used):
    torch.manual_seed(0)
    model = well_used(GatedBackbone(dict(NETWORKS[name]), GATE)).eval()
    images = torch.randn(4, 3, 32, 32).split(1)
    want = [answers_of(model, image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: answers_of(model, x), images * 5))
    for number, answer in enumerate(got):
        assert same(answer, want[number % 4]), number


def slope(model, images):
    """Of the inputs, since gradients of parameters are summed."""
    images = images.clone().requires_grad_()
    outputs, records = model.forward_gated(images)
    loss = sum(record.probs.sum() for record in records)
    (grad,) = torch.autograd.grad(outputs[-1].sum() + loss, images)
    return [grad]


@pytest.mark.usefixtures('busy_threads')
def test_threads_get_the_gradients_that_one_thread_gets(well_used):
    torch.manual_seed(0)
    model = well_used(GatedBackbone(dict(NETWORKS['chain']), GATE)).eval()
    images = torch.randn(4, 3, 32, 32).split(1)
    want = [slope(model, image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: slope(model, x), images * 5))
    assert all(same(g, want[n % 4]) for n, g in enumerate(got))


class Both(nn.Module):
    """A network that runs another one in its forward pass."""

    def __init__(self, outer, inner):
        super().__init__()
        self.outer, self.inner = outer, inner
        outer.backbone.layer2.register_forward_pre_hook(self._ask)

    def _ask(self, *_):
        self.values = self.inner(self.images)

    def forward(self, images):
        self.images = images
        return [*self.outer(images), *self.values]


@torch.no_grad()
@pytest.mark.parametrize('copied', [False, True])
def test_one_gated_model_runs_inside_another(copied, well_used):
    torch.manual_seed(0)
    make = dict(NETWORKS['chain'])
    outer = well_used(GatedBackbone(dict(make), GATE)).eval()
    # a copy (an EMA model, say) has sites of the same names
    inner = (
        copy.deepcopy(outer) if copied else GatedBackbone(dict(make), GATE)
    ).eval()
    for gate in inner.gates.values():
        gate.expand.bias.data.neg_()
        gate.expand.bias.data[::2] = 5
    images = torch.randn(2, 3, 32, 32)
    want = [*outer(images), *inner(images)]
    assert same(Both(outer, inner)(images), want)
    # inside a gated model, the plain network of another one stays dense
    plain = inner.backbone
    want = [*outer(images), *plain(images)]
    assert same(Both(outer, plain)(images), want)


def test_the_compiled_network_is_one_graph_in_every_thread(well_used):
    torch.manual_seed(0)
    cfg = dict(NETWORKS['chain'])
    model = well_used(GatedBackbone(cfg, GATE, sites=['layer1*'])).eval()
    images = torch.randn(2, 3, 32, 32)
    want = answers_of(model, images)
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    model.backbone.compile(backend=count, fullgraph=True)
    got = [answers_of(model, images)]
    with ThreadPoolExecutor(2) as pool:
        got += pool.map(lambda x: answers_of(model, x), [images] * 4)
    for answer in got:
        for one, other in zip(answer, want, strict=True):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1


def macs_of(model, image):
    with torch.no_grad():
        return [sample.macs for sample in model.predict(image)]


def test_a_prediction_within_another_counts_its_own_macs(monkeypatch):
    """A call of another size in between, as by another thread."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=dict(
                type='fgc_mm.GatedBackbone',
                backbone=NETWORKS['chain'],
                gate=GATE,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
        )
    ).eval()
    small, large = (torch.randn(1, 3, size, size) for size in (16, 32))
    want = [macs_of(model, image) for image in (small, large)]
    assert want[0] != want[1]
    cat, between = torch.cat, []

    def interrupted(*args, **kwargs):
        if not between:
            between.append(None)
            between[:] = macs_of(model, large)
        return cat(*args, **kwargs)

    assert macs_of(model, small) == want[0]
    monkeypatch.setattr(torch, 'cat', interrupted)
    assert macs_of(model, small) == want[0]
    assert between == want[1]
