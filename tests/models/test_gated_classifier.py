"""The classifier: losses, predictions with MACs, checkpoints."""

import copy
import itertools

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmpretrain.structures import DataSample

import fgc_mm.engine
from fgc_mm.errors import FGCError
from fgc_mm.functional import LayerMACs, macs_per_image
from fgc_mm.models import gate_losses_mixin
from fgc_mm.registry import MODELS

RUNS = itertools.count()
L0 = dict(type='fgc_mm.L0Loss', loss_weight=0.5)


@pytest.fixture
def model(tiny):
    return tiny.build(gate_losses=[L0])


@pytest.fixture
def batch(tiny):
    return torch.randn(4, 3, 16, 16), tiny.samples([3, 1, 4, 1])


def test_losses_are_logged_under_their_names(model, batch):
    losses = model.train().loss(*batch)
    assert list(losses) == ['loss_cls', 'loss_l0', 'keep_ratio']
    total, logged = model.parse_losses(losses)
    parts = losses['loss_cls'] + losses['loss_l0']
    torch.testing.assert_close(total, parts)
    torch.testing.assert_close(logged['loss'], parts)
    assert not losses['keep_ratio'].requires_grad


def test_the_losses_have_the_right_values(model, batch):
    model.eval()
    losses = model.loss(*batch)
    with torch.no_grad():
        _, records = model.backbone.forward_gated(batch[0])
        scores = model(batch[0])
    labels = torch.tensor([3, 1, 4, 1])
    want = torch.nn.functional.cross_entropy(scores, labels)
    torch.testing.assert_close(losses['loss_cls'], want)
    probs = torch.cat([r.probs.flatten() for r in records])
    torch.testing.assert_close(losses['loss_l0'], 0.5 * probs.mean())
    opened = torch.cat([r.mask.flatten() for r in records])
    torch.testing.assert_close(losses['keep_ratio'], opened.mean())


def test_a_loss_that_counts_macs_is_given_the_table(tiny, batch):
    target = dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.3)
    model = tiny.build(gate_losses=[L0, target]).eval()
    losses = model.loss(*batch)
    with torch.no_grad():
        _, records = model.backbone.forward_gated(batch[0])
    table = model.macs_table((3, 16, 16))
    share = macs_per_image(table, [r.mask for r in records]).mean()
    want = 5 * (share / table.dense - 0.7) ** 2
    torch.testing.assert_close(losses['loss_macs'], want.float())


def test_other_losses_of_the_head_are_kept(tiny, batch):
    cfg = tiny.cfg()
    cfg['head']['cal_acc'] = True
    losses = MODELS.build(cfg).loss(*batch)
    assert set(losses) == {'loss_cls', 'accuracy_top-1', 'keep_ratio'}


def test_predictions_carry_their_images_macs(model, batch):
    model.eval()
    with torch.no_grad():
        predictions = model.predict(*batch)
        _, records = model.backbone.forward_gated(batch[0])
    table = model.macs_table((3, 16, 16))
    masks = [record.mask for record in records]
    macs = macs_per_image(table, masks)
    for number, sample in enumerate(predictions):
        assert sample.macs.item() == macs[number].item()
        assert sample.macs_table is table
        want = torch.cat([m[number] for m in masks]) != 0
        assert torch.equal(sample.gate_masks, want)
        assert sample.pred_score.argmax() == sample.pred_label


def test_predicting_without_samples(model, batch):
    predictions = model.eval().predict(batch[0])
    assert len(predictions) == 4
    assert all(isinstance(p, DataSample) for p in predictions)
    assert predictions[0].macs > 0


def test_a_table_is_counted_once_per_shape(model, monkeypatch):
    counted = []

    def count(_, shape):
        counted.append(shape)
        return shape

    module = 'fgc_mm.models.gate_losses_mixin.build_macs_table'
    monkeypatch.setattr(module, count)
    for size in (8, 8, 16, 8):
        assert model.macs_table((3, size, size)) == (3, size, size)
    assert counted == [(3, 8, 8), (3, 16, 16)]


def test_all_open_costs_dense_plus_gates(model, batch):
    for gate in model.backbone.gates.values():
        torch.nn.init.constant_(gate.expand.bias, 100)
    table = model.macs_table((3, 16, 16))
    assert isinstance(table.layers[0], LayerMACs)
    for sample in model.eval().predict(*batch):
        assert sample.macs == table.dense + table.gates
        assert sample.gate_masks.all()


def test_modes_return_the_model(model):
    assert model.train() is model and model.eval() is model
    assert not model.backbone.gates.training


def test_a_plain_backbone_is_refused(tiny):
    cfg = tiny.cfg()
    cfg['backbone'] = cfg['backbone']['backbone']
    with pytest.raises(FGCError, match=r'^the backbone CifarResNet has no'):
        MODELS.build(cfg)


def test_two_losses_of_one_name_are_refused(tiny):
    with pytest.raises(FGCError, match=r"^2 gate losses are called 'l0'"):
        tiny.build(gate_losses=[L0, dict(L0)])
    both = tiny.build(gate_losses=[L0, dict(L0, name='other')])
    assert len(both.gate_losses) == 2


def test_the_name_of_the_classification_loss_is_taken(tiny):
    with pytest.raises(FGCError, match=r"^a gate loss is called 'cls'"):
        tiny.build(gate_losses=[dict(L0, name='cls')])


# checkpoints


@pytest.fixture
def plain(tiny):
    torch.manual_seed(11)
    cfg = copy.deepcopy(tiny.cfg())
    cfg.update(type='ImageClassifier', backbone=cfg['backbone']['backbone'])
    del cfg['gate_losses']
    return MMPRETRAIN.build(cfg)


def holds(model, plain):
    own = model.state_dict()
    return all(
        torch.equal(value, own[key.replace('backbone.', 'backbone.' * 2)])
        for key, value in plain.state_dict().items()
    )


def runner(model, folder, **options):
    assert fgc_mm.engine
    return Runner(
        model,
        str(folder),
        experiment_name=f'classifier{next(RUNS)}',
        **options,
    )


def test_load_state_dict_takes_a_plain_classifier(model, plain):
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert holds(model, plain) and not result.unexpected_keys
    assert all(k.startswith('backbone.gates.') for k in result.missing_keys)


def test_load_from_takes_a_plain_classifier(model, plain, tmp_path, capfd):
    path = tmp_path / 'plain.pth'
    torch.save(dict(state_dict=plain.state_dict(), meta={}), path)
    loader = runner(model, tmp_path, load_from=str(path))
    loader.load_or_resume()
    assert holds(model, plain)
    output = ''.join(capfd.readouterr())
    assert 'missing keys' in output and 'backbone.gates.layer1-0' in output
    assert 'unexpected key' not in output


def test_init_cfg_takes_a_plain_classifier(tiny, plain, tmp_path):
    path = tmp_path / 'plain.pth'
    torch.save(dict(state_dict=plain.state_dict()), path)
    init = dict(type='Pretrained', checkpoint=str(path))
    for cfg in (dict(init_cfg=init), dict(pretrained=str(path))):
        model = MODELS.build(dict(tiny.cfg(), **cfg))
        model.init_weights()
        assert holds(model, plain)


def test_a_foreign_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict={'a.weight': torch.ones(2)}), path)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FGCError, match=r'1 entries \(a\.weight, .*\.$'):
        runner(model, tmp_path, load_from=str(path)).load_or_resume()
    with pytest.raises(FGCError, match=r'none is a parameter'):
        model.load_state_dict({'a.weight': torch.ones(2)}, strict=False)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_bare_backbones_keys_are_foreign_to_a_classifier(model, plain):
    state = plain.backbone.state_dict()
    with pytest.raises(FGCError, match='none is a parameter'):
        model.load_state_dict(state, strict=False)


def test_a_classifier_inside_another_module_loads(model, plain):
    outer = torch.nn.ModuleDict(dict(module=model))
    state = {f'module.{k}': v for k, v in plain.state_dict().items()}
    outer.load_state_dict(state, strict=False)
    assert holds(model, plain)


def test_a_state_dict_makes_the_round_trip(model, tiny, batch):
    other = tiny.build(seed=1, gate_losses=[L0])
    other.load_state_dict(model.state_dict())
    one, two = (m.eval().predict(batch[0]) for m in (model, other))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.pred_score, b.pred_score) and a.macs == b.macs


@torch.no_grad()
def test_nan_logits_are_not_closed_gates(tiny):
    model = tiny.build().eval()
    next(iter(model.backbone.gates.values())).expand.bias.fill_(float('nan'))
    with pytest.raises(FGCError, match='outputs nan or inf'):
        model.predict(torch.zeros(2, 3, 32, 32))


def test_a_loss_that_is_no_gate_loss_is_refused(tiny):
    cfg = tiny.cfg()
    cfg['gate_losses'] = [dict(type='CrossEntropyLoss')]
    with pytest.raises(FGCError, match='CrossEntropyLoss in gate_losses is'):
        MODELS.build(cfg)


def test_the_tables_of_many_image_sizes_are_bounded(tiny, monkeypatch):
    built = []
    monkeypatch.setattr(
        gate_losses_mixin,
        'build_macs_table',
        lambda _, shape: built.append(shape) or object(),
    )
    model, most = tiny.build(), gate_losses_mixin.MOST_TABLES
    shapes = [(3, 32, width) for width in range(32, 32 + most + 5)]
    first = model.macs_table(shapes[0])
    assert model.macs_table(shapes[0]) is first and built == shapes[:1]
    tables = [model.macs_table(shape) for shape in shapes]
    assert len(model._tables) == most
    kept = [model.macs_table(shape) for shape in shapes[-most:]]
    assert all(a is b for a, b in zip(kept, tables[-most:]))
    assert built == shapes
