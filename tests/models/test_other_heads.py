"""Heads of several labels, several tasks and several outputs."""

from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.evaluation import MultiTasksMetric
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmpretrain.structures import DataSample, MultiTaskDataSample

from fgc_mm.errors import FGCError
from fgc_mm.evaluation import DynamicMACs
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.losses.label_neighbors import LabelNeighbors
from fgc_mm.models.class_scores import independent_labels
from fgc_mm.registry import MODELS

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SETS = [[0, 2], [1], [2, 3, 4], [0]]
EASY = dict(type='fgc_mm.SaliencyL1Loss', easiness=True, loss_weight=1.0)


def linear(kind, classes=5, **options):
    return dict(type=kind, num_classes=classes, in_channels=16, **options)


MULTI_LABEL = linear('MultiLabelLinearClsHead')
SIGMOID = linear(
    'LinearClsHead',
    loss=dict(
        type='LabelSmoothLoss',
        label_smooth_val=0.1,
        mode='multi_label',
        use_sigmoid=True,
    ),
)
TASKS = dict(
    type='MultiTaskHead',
    task_heads=dict(color=linear('LinearClsHead', 3), shape=MULTI_LABEL),
)
TWO_OUTPUTS = dict(
    type='ConformerHead', num_classes=5, in_channels=[16, 16]
)  # fmt: skip


@pytest.fixture(scope='module')
def backbone(tiny):
    torch.manual_seed(0)
    return MODELS.build(tiny.cfg()['backbone'])


@pytest.fixture
def build(tiny, backbone):
    def make(head, **options):
        cfg = dict(tiny.cfg(), head=head, **options)
        cfg['backbone'] = deepcopy(backbone)  # its sites are found once
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        for part in model.modules():
            if hasattr(part, 'progress'):
                part.progress = Progress(0, 0)
        return model

    return make


def label_sets():
    return [DataSample().set_gt_label(labels) for labels in SETS]


def task_samples():
    samples = []
    for number, labels in enumerate(SETS):
        sample = MultiTaskDataSample()
        sample.set_field(DataSample().set_gt_label(number % 3), 'color')
        sample.set_field(DataSample().set_gt_label(labels), 'shape')
        samples.append(sample)
    return samples


@pytest.mark.parametrize('head', [MULTI_LABEL, SIGMOID])
def test_easiness_compares_the_labels_binary_entropies(build, head):
    model = build(head, gate_losses=[EASY]).eval()
    samples = label_sets()
    if head is SIGMOID:
        samples = [DataSample().set_gt_label(x[0]) for x in SETS]
    model.loss(IMAGES, samples)
    scores = model.head(model.extract_feat(IMAGES))
    sets = [[x[0]] for x in SETS] if head is SIGMOID else SETS
    total = 0.0
    for row, labels in zip(scores, sets):
        for number, score in enumerate(row):
            p = score.sigmoid() if number in labels else (-score).sigmoid()
            total -= p.log().item()
    weights = model.gate_losses[0].easiness
    assert weights.total.item() == pytest.approx(total, rel=1e-5)
    # in the next epoch some images are easy
    model.progress = Progress(1, 9)
    assert model.loss(IMAGES, samples)['loss_saliency'].isfinite()


def test_shares_of_labels_are_taken_as_they_are(build):
    model = build(MULTI_LABEL, gate_losses=[EASY])
    shares = torch.rand(4, 5)
    samples = [DataSample().set_gt_score(row) for row in shares]
    model.eval().loss(IMAGES, samples)
    scores = model.head(model.extract_feat(IMAGES))
    want = F.binary_cross_entropy_with_logits(scores, shares, reduction='sum')
    total = model.gate_losses[0].easiness.total
    torch.testing.assert_close(total, want.double(), rtol=1e-5, atol=1e-5)


def test_distillation_of_labels_is_not_invariant_to_a_shift():
    teacher = torch.tensor([[4.0, -4.0, -4.0]])
    student = teacher + 8  # predicts every label
    assert DistillationLoss(1)(student, teacher).item() < 1e-6
    loss = DistillationLoss(2, 0.5, independent_labels=True)
    total = 0.0
    for s, t in zip((student / 2).flatten(), (teacher / 2).flatten()):
        for sign in (1, -1):
            q, p = (sign * t).sigmoid(), (sign * s).sigmoid()
            total += (q * (q.log() - p.log())).item()
    assert loss(student, teacher).item() == pytest.approx(0.5 * 4 * total)
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    both = loss(student.repeat(3, 1), teacher.repeat(3, 1))
    torch.testing.assert_close(both, loss(student, teacher))


@pytest.fixture
def teacher(tmp_path):
    def make(head):
        cfg = dict(
            type='ImageClassifier',
            backbone=dict(type='fgc_mm.CifarResNet', base_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
        )
        path = tmp_path / 'dense.pth'
        network = MMPRETRAIN.build(cfg)
        torch.save(dict(state_dict=network.state_dict()), path)
        return dict(teacher=cfg, checkpoint=str(path))

    return make


@pytest.mark.parametrize('head', [MULTI_LABEL, SIGMOID])
def test_the_classifier_distils_its_heads_scores(build, teacher, head):
    model = build(head, distillation=teacher(head))
    assert model.distillation.independent_labels
    samples = [DataSample().set_gt_label(x[:1]) for x in SETS]
    loss = model.loss(IMAGES, samples)['loss_distillation']
    assert loss.isfinite() and loss > 0


def test_a_batch_updates_a_heads_batch_norm_once(build, teacher):
    head = linear(
        'StackedLinearClsHead', mid_channels=[8], norm_cfg=dict(type='BN1d')
    )
    samples = [DataSample().set_gt_label(x[0]) for x in SETS]
    plain = build(head)
    torch.manual_seed(1)
    plain.loss(IMAGES, samples)
    # both read the head's scores again
    model = build(head, distillation=teacher(head), gate_losses=[EASY])
    torch.manual_seed(1)
    total, _ = model.parse_losses(model.loss(IMAGES, samples))
    total.backward()
    updated = dict(model.head.named_buffers())
    for name, want in plain.head.named_buffers():
        torch.testing.assert_close(updated[name], want, rtol=0, atol=0)


def test_a_teacher_of_another_kind_is_refused(build, teacher):
    softmax = linear('LinearClsHead')
    for head, other in ((MULTI_LABEL, softmax), (softmax, MULTI_LABEL)):
        with pytest.raises(FGCError, match='same kind of head'):
            build(head, distillation=teacher(other))


@pytest.mark.parametrize(
    ('head', 'samples'), [(TASKS, task_samples), (MULTI_LABEL, label_sets)]
)
def test_trains_and_predicts_with_macs(build, head, samples):
    model = build(head)
    total, logs = model.parse_losses(model.loss(IMAGES, samples()))
    total.backward()
    assert 'keep_ratio' in logs
    model.eval()
    with torch.no_grad():
        found = model.predict(IMAGES, samples())
        again = model.predict(IMAGES, found)  # fields are overwritten
        bare = model.predict(IMAGES)
    metric = DynamicMACs()
    metric.process(None, [sample.to_dict() for sample in again])
    numbers = metric.evaluate(4)
    assert numbers['macs/dense'] == model.macs_table((3, 16, 16)).dense
    assert [x.macs for x in bare] == [x.macs for x in found]
    if head is TASKS:
        assert set(found[0].tasks) == {'color', 'shape'}
        accuracy = dict(type='Accuracy')
        tasks = MultiTasksMetric(dict(color=[accuracy]))
        tasks.process(None, [sample.to_dict() for sample in found])
        assert 'color_accuracy/top1' in tasks.evaluate(4)


@pytest.mark.parametrize(
    ('head', 'kind'), [(TASKS, 'dict'), (TWO_OUTPUTS, 'tuple|list')]
)
def test_losses_that_need_one_tensor_of_scores_refuse(
    build, teacher, head, kind
):
    words = rf'{head["type"]} returns a ({kind}) of scores, but'
    double = dict(neck=None) if head is TWO_OUTPUTS else {}
    model = build(head, gate_losses=[EASY], **double)
    feats = partial(_pooled, model) if head is TWO_OUTPUTS else None
    if feats:
        model._extract_gated = feats
    with pytest.raises(FGCError, match=rf'{words} SaliencyL1Loss needs'):
        model.loss(IMAGES, task_samples())
    if head is TASKS:
        model = build(head, distillation=teacher(head))
        with pytest.raises(FGCError, match=rf'{words} distillation needs'):
            model.loss(IMAGES, task_samples())


def _pooled(model, inputs):
    """Two feature vectors, as a Conformer has them."""
    feats, records = model.backbone.forward_gated(inputs)
    pooled = feats[-1].mean(dim=(2, 3))
    return ([pooled, pooled],), records


@pytest.mark.parametrize('labels', [[[0], [1, 2]], [0, None], [[]], [{}]])
def test_neighbours_by_label_need_one_label_each(labels):
    number = next(
        i for i, x in enumerate(labels) if x in (None, [], {}, [1, 2])
    )
    with pytest.raises(FGCError, match=rf'image {number} .*not exactly one'):
        LabelNeighbors.single_labels(labels)


def test_one_label_each_in_any_dress():
    labels = [0, [1], torch.tensor([2]).numpy(), torch.tensor(3)]
    assert LabelNeighbors.single_labels(labels).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ('loss', 'independent'),
    [
        ('FocalLoss', True),
        ('AsymmetricLoss', True),
        ('CrossEntropyLoss', False),
        ('SeesawLoss', False),
    ],
)
def test_losses_of_independent_labels(loss, independent):
    options = dict(num_classes=5) if loss == 'SeesawLoss' else {}
    head = MODELS.build(
        dict(linear('LinearClsHead'), loss=dict(type=loss, **options))
    )
    assert independent_labels(head) is independent
