"""Models that classify nothing: gate losses, MACs, memory banks."""

import copy
import json
import pickle

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

from fgc_mm.deploy import to_dynamic
from fgc_mm.errors import FGCError
from fgc_mm.functional import macs_per_image
from fgc_mm.models import GatedModelMixin
from fgc_mm.models.gated_model import gated_class
from fgc_mm.models.record_collector import collect_records
from fgc_mm.registry import MODELS

from .dense_detector import SIZE, Boxes, DenseDetector, detector_config

COUPLING = dict(
    type='fgc_mm.FeatureGateCouplingLoss', sites=2, num_neighbors=2,
    warmup_epochs=0, loss_weight=0.1,
)  # fmt: skip
LOSSES = [
    dict(type='fgc_mm.L0Loss', loss_weight=0.1),
    dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.3),
    COUPLING,
]


def build(gate_losses=(), **options):
    torch.manual_seed(0)
    return MODELS.build(detector_config(gate_losses, **options))


def batch(count=2):
    items = [Boxes(count)[i] for i in range(count)]
    samples = [item['data_samples'] for item in items]
    return torch.stack([item['inputs'] for item in items]), samples


def loader(**options):
    return dict(
        batch_size=4, num_workers=0, dataset=Boxes(),
        sampler=dict(type='DefaultSampler', shuffle=True), **options,
    )  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Two epochs of two steps, validated."""
    folder = tmp_path_factory.mktemp('detector')
    runner = Runner(
        model=detector_config(LOSSES),
        work_dir=str(folder),
        train_dataloader=loader(),
        val_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg=dict(),
        val_evaluator=dict(type='fgc_mm.DynamicMACs'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
        custom_hooks=[
            dict(type='fgc_mm.LossProgressHook'),
            dict(type='fgc_mm.FGCMemoryBankHook'),
        ],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name='detector',
        randomness=dict(seed=0),
        default_scope='mmengine',
    )
    runner.first = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    (log,) = folder.glob('*/vis_data/scalars.json')
    runner.lines = [json.loads(x) for x in log.read_text().splitlines()]
    return runner


def test_a_detector_trains_with_all_gate_losses(run):
    steps = [line for line in run.lines if 'loss' in line]
    assert len(steps) == 4
    for line in steps:
        parts = [v for k, v in line.items() if k.startswith('loss_')]
        assert {'loss_dense', 'loss_l0', 'loss_macs', 'loss_coupling'} <= {
            *line
        }
        assert line['loss'] == pytest.approx(sum(parts), rel=1e-3)
        assert 0 < line['keep_ratio'] < 1
    state = run.model.state_dict()
    moved = [k for k, v in state.items() if not torch.equal(v, run.first[k])]
    gates = [k for k in state if '.gates.' in k and k.endswith('weight')]
    assert gates and {*gates} <= {*moved}


def test_its_validation_counts_macs(run):
    values = run.lines[-1]
    table = run.model.macs_table((3, SIZE, SIZE))
    assert values['macs/dense'] == table.base()
    assert 0 < values['macs/mean'] < values['macs/dense'] * 1.05
    roles = {layer.name.split('.')[0] for layer in table.layers}
    assert roles == {'backbone', 'heads'}


def test_the_banks_have_a_row_per_image_and_are_saved(run):
    loss = run.model.gate_losses[2]
    assert len(loss.banks) == 2
    saved = torch.load(
        f'{run.work_dir}/epoch_2.pth', weights_only=False
    )['fgc_memory_banks']['coupling']  # fmt: skip
    for name, banks in loss.banks.items():
        assert len(banks.feature.rows) == 8
        assert torch.equal(saved[name]['gate']['rows'], banks.gate.rows)


def test_the_gate_losses_are_those_of_the_records():
    model = build(LOSSES[:2]).eval()
    images, samples = batch()
    losses = model(images, samples, mode='loss')
    _, records = model.backbone.forward_gated(images)
    probs = torch.cat([r.probs.flatten() for r in records]).mean()
    torch.testing.assert_close(losses['loss_l0'], 0.1 * probs)
    table = model.macs_table((3, SIZE, SIZE))
    share = macs_per_image(table, [r.mask for r in records]).mean()
    want = 5 * (share / table.base() - 0.7) ** 2
    torch.testing.assert_close(losses['loss_macs'], want.float())


def test_predictions_have_their_images_macs():
    model = build().eval()
    images, samples = batch()
    results = model(images, samples, mode='predict')
    _, records = model.backbone.forward_gated(images)
    table = model.macs_table((3, SIZE, SIZE))
    want = macs_per_image(table, [r.mask for r in records])
    got = torch.stack([sample.macs for sample in results])
    torch.testing.assert_close(got, want)
    assert all('pred_instances' in sample for sample in results)


def test_the_plain_models_checkpoint_can_be_loaded():
    cfg = detector_config()
    plain_backbone = cfg['backbone']['backbone']
    plain = DenseDetector(plain_backbone, cfg['channels'])
    model = build().eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert all('.gates.' in key for key in missing.missing_keys)
    assert not missing.unexpected_keys
    with pytest.raises(FGCError, match='none is a parameter of this model'):
        model.load_state_dict({'other.weight': torch.zeros(1)}, strict=False)


def test_a_subclass_in_python_is_the_same():
    class GatedDetector(GatedModelMixin, DenseDetector):
        pass

    cfg = detector_config(LOSSES[:1])
    del cfg['type'], cfg['base']
    model = GatedDetector(**cfg)
    assert 'loss_l0' in model(*batch(), mode='loss')


def test_a_dynamic_backbone_serves_a_detector():
    model = build().eval()
    images, samples = batch()
    want = model(images, samples, mode='predict')
    want = [(s.pred_instances.scores, s.macs) for s in want]
    model.backbone = to_dynamic(model.backbone, images, backend='torch')
    model._tables.clear()
    for sample, (scores, macs) in zip(
        model(*batch(), mode='predict'), want, strict=True
    ):
        torch.testing.assert_close(sample.pred_instances.scores, scores)
        assert sample.macs == macs


def test_records_are_collected_of_one_backbone_in_one_thread():
    first, second = build().backbone.eval(), build().backbone.eval()
    images = torch.randn(1, 3, SIZE, SIZE)
    with collect_records(first) as calls:
        second(images)
        assert calls == []
        first(images)
        first.forward_gated(images)
    first(images)
    assert len(calls) == 1 and len(calls[0]) == len(first.sites)


@pytest.mark.parametrize('passes', [0, 2])
def test_a_backbone_that_does_not_run_once_is_refused(passes):
    model = build(passes=passes or 1)
    if not passes:
        maps = [torch.zeros(2, c, 4, 4) for c in (8, 16, 32, 64)]
        model.backbone.forward = lambda _: maps
    with pytest.raises(FGCError, match=f'its backbone {passes} times'):
        model(*batch(), mode='loss')


class Odd(BaseModel):
    """Breaks one convention after the other."""

    def __init__(self, backbone, needs_samples=False):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.needs_samples = needs_samples

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.backbone(inputs)
        if mode == 'predict':
            return torch.zeros(len(inputs))
        if self.needs_samples:
            return data_samples[0]
        return {}


def odd(**options):
    backbone = detector_config()['backbone']
    cfg = dict(type='fgc_mm.GatedModel', base=Odd, backbone=backbone)
    return MODELS.build(cfg | options)


def refusals():
    images, samples = batch()
    plain = detector_config()['backbone']['backbone']
    l0 = LOSSES[0]
    yield lambda: build(base='NoDetector'), "base='NoDetector' of fgc_mm"
    yield lambda: build(base='BaseModule'), 'no registered MMEngine model'
    yield lambda: build(backbone=plain), 'the backbone ResNet has no gates'
    yield lambda: build([l0, l0]), "2 gate losses are called 'l0'"
    easy = dict(type='fgc_mm.SaliencyL1Loss', easiness=True, loss_weight=1)
    yield lambda: build([easy]), 'needs the scores of a classifier'
    taken = build([dict(l0, name='dense')])
    yield lambda: taken(images, samples, mode='loss'), 'own loss_dense'
    yield lambda: odd()(images, samples, mode='predict'), 'returns a Tensor'
    macs = odd(gate_losses=[LOSSES[1]], needs_samples=True)
    yield lambda: macs(images, samples, mode='loss'), 'pass that counts its'


@pytest.mark.parametrize('number', range(8))
def test_what_is_refused_is_one_sentence(number):
    call, words = [*refusals()][number]
    with pytest.raises(FGCError, match=words) as caught:
        call()
    assert '\n' not in str(caught.value)


def test_it_can_be_pickled_and_copied():
    model = build().eval()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(again) is type(model)
        state = again.state_dict()
        for key, value in model.state_dict().items():
            assert torch.equal(state[key], value), key


class Mine(gated_class(DenseDetector)):
    """A subclass of the class that the config builds."""


class Other(GatedModelMixin, DenseDetector):
    """As of a module of the user."""


class Third(Other):
    pass


@pytest.mark.parametrize('kind', [Mine, Other, Third])
def test_subclasses_can_be_pickled_and_copied(kind):
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    model.number = 3
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(again) is kind and again.number == 3


class NamedInputs(BaseModel):
    """A model of several inputs, of which one is the image."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        value = self.backbone(inputs['img'])[-1].square().mean()
        return dict(loss_own=value) if mode == 'loss' else value


def test_several_inputs_are_refused():
    backbone = detector_config()['backbone']
    model = gated_class(NamedInputs)(backbone=backbone)
    inputs = dict(img=batch()[0])
    assert model(inputs).isfinite()
    with pytest.raises(FGCError, match=r'inputs of .* are a dict, but MACs'):
        model(inputs, mode='loss')
