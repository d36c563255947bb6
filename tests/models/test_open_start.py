"""A gated network whose outputs are those of the dense one at first."""

import pytest
import torch
from mmengine.model import PretrainedInit
from mmpretrain.registry import MODELS as MMPRETRAIN

from fgc_mm.engine.loss_progress_hook import set_progress
from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.registry import MODELS

BACKBONE = dict(type='fgc_mm.CifarResNet', base_channels=4)
PARTS = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)
OPEN = [
    dict(type='fgc_mm.BinaryConcreteGate', weight_init='zero', init_bias=3.0),
    dict(type='fgc_mm.ManiDPGate', weight_init='zero'),
]
MACS = dict(
    type='fgc_mm.MACsTargetLoss',
    pruning_ratio=dict(start_value=0.0, end_value=0.5, begin=0, end=10),
    loss_weight=100.0,
)


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """A dense network whose norms are as after training, and its file."""
    torch.manual_seed(5)
    network = MMPRETRAIN.build(
        dict(type='ImageClassifier', backbone=BACKBONE, **PARTS)
    )
    images = torch.randn(16, 3, 16, 16)
    for _ in range(3):
        network.train()
        network.extract_feat(images)
    path = tmp_path_factory.mktemp('dense') / 'dense.pth'
    torch.save(dict(state_dict=network.state_dict()), path)
    return network.eval(), str(path)


@pytest.fixture
def images():
    return torch.randn(
        4, 3, 16, 16, generator=torch.Generator().manual_seed(2)
    )


def student(gate=OPEN[0], **options):
    backbone = dict(type='fgc_mm.GatedBackbone', backbone=BACKBONE, gate=gate)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier', backbone=backbone, **PARTS,
            **options,
        )
    )  # fmt: skip


@pytest.mark.parametrize('group', [1, 2])
@pytest.mark.parametrize('gate', OPEN, ids=lambda gate: gate['type'])
@torch.no_grad()
def test_the_accuracy_of_the_dense_network_is_kept(gate, group, dense, images):
    network, path = dense
    model = student(dict(gate, group=group)).eval()
    model.load_state_dict(torch.load(path)['state_dict'], strict=False)
    wanted = network(images, mode='tensor')
    assert torch.equal(model(images, mode='tensor'), wanted)
    records = model.backbone.forward_gated(images)[1]
    assert all((record.mask == 1).all() for record in records)


def test_the_teacher_is_the_network_without_gates(dense, images, tiny):
    network, path = dense
    model = student(distillation=dict(checkpoint=path, loss_weight=2.0))
    losses = model.eval().loss(images, tiny.samples([1, 2, 3, 4]))
    with torch.no_grad():
        answers = network(images, mode='tensor')
        ours = model(images, mode='tensor')
    want = DistillationLoss(loss_weight=2.0)(ours, answers)
    torch.testing.assert_close(losses['loss_distillation'], want)


def test_a_teacher_without_weights_is_refused_in_training(images, tiny):
    model = student(distillation=dict(temperature=2.0)).eval()
    with torch.no_grad():
        model(images, mode='tensor')
    with pytest.raises(FGCError, match=r'no checkpoint of its teacher .*\.$'):
        model.loss(images, tiny.samples([1, 2, 3, 4]))


def test_a_backbone_that_is_a_module_needs_a_named_teacher():
    with pytest.raises(FGCError, match=r'has no teacher .* give teacher='):
        MODELS.build(
            dict(
                type='fgc_mm.GatedImageClassifier',
                backbone=student().backbone, distillation=dict(), **PARTS,
            )
        )  # fmt: skip


def test_the_budget_falls_with_the_epochs(images, tiny):
    model = student(gate_losses=[MACS]).eval()
    found = []
    for epoch in (0, 5, 10):
        set_progress(model, Progress(epoch, 0))
        losses = model.loss(images, tiny.samples([1, 2, 3, 4]))
        found.append(losses['loss_macs'].item())
    table = model.macs_table((3, 16, 16))
    share = (table.dense + table.gates) / table.dense  # all are open
    want = [100 * (share - 1 + ratio) ** 2 for ratio in (0, 0.25, 0.5)]
    assert found == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize('end', [0.0, 1.0])
def test_the_last_budget_is_a_share_that_can_be_saved(end):
    ratio = dict(MACS['pruning_ratio'], end_value=end)
    with pytest.raises(FGCError, match='is not a fraction of the MACs'):
        MODELS.build(dict(MACS, pruning_ratio=ratio))


def test_a_budget_out_of_reach_is_refused_when_the_ramp_starts(images, tiny):
    ratio = dict(MACS['pruning_ratio'], end_value=0.99)
    model = student(gate_losses=[dict(MACS, pruning_ratio=ratio)]).eval()
    set_progress(model, Progress(0, 0))
    with pytest.raises(FGCError, match=r'pruning_ratio=0.99 is out of reach'):
        model.loss(images, tiny.samples([1, 2, 3, 4]))


# as the configs of Swin, ConvNeXt and others have it
ALL_LAYERS = dict(
    type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0
)


@pytest.mark.parametrize('gate', OPEN)
@torch.no_grad()
def test_an_init_cfg_of_the_model_leaves_the_gates_alone(gate, images):
    model = student(gate, init_cfg=ALL_LAYERS).eval()
    before = {
        k: v.clone() for k, v in model.backbone.gates.state_dict().items()
    }
    model.init_weights()
    assert model.head.fc.weight.std() < 0.03  # it was applied
    after = model.backbone.gates.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)
    _, records = model.backbone.forward_gated(images)
    assert all(record.mask.eq(1).all() for record in records)
    # a second call changes nothing, as mmengine's
    model.backbone.gates.state_dict()['layer1-0-conv1.expand.bias'].fill_(2)
    model.init_weights()
    assert (after['layer1-0-conv1.expand.bias'] == 2).all()


@pytest.fixture
def trained(tmp_path):
    """A model with gates of random values, and a file of its backbone."""
    model = student()
    for gate in model.backbone.gates.values():
        torch.nn.init.normal_(gate.expand.weight)
    path = tmp_path / 'gated.pth'
    torch.save(dict(state_dict=model.backbone.state_dict()), path)
    return model, str(path)


def same_gates(model, other):
    got, want = (x.backbone.gates.state_dict() for x in (model, other))
    return all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
@pytest.mark.parametrize('others', [[], [ALL_LAYERS]])
def test_pretrained_gates_replace_the_initial_ones(kind, others, trained):
    model = student(init_cfg=ALL_LAYERS)
    pretrained = dict(type=kind, checkpoint=trained[1])
    model.backbone.init_cfg = [*others, pretrained]
    model.init_weights()
    assert same_gates(model, trained[0])


def test_a_dense_checkpoint_leaves_the_gates_alone(trained, tmp_path):
    path = str(tmp_path / 'dense.pth')
    torch.save(trained[0].backbone.backbone.state_dict(), path)
    model, before = student(), student()
    before.load_state_dict(model.state_dict())
    pretrained = dict(type='Pretrained', checkpoint=path)
    model.backbone.init_cfg = [ALL_LAYERS, pretrained]
    model.init_weights()
    assert same_gates(model, before)


@pytest.mark.parametrize('init_cfg', [None, ALL_LAYERS])
def test_loaded_gates_stay(init_cfg, trained):
    model = student(init_cfg=init_cfg)
    model.load_state_dict(trained[0].state_dict())
    model.init_weights()
    assert same_gates(model, trained[0])
