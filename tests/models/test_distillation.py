"""Learning from a dense teacher."""

import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses.distillation import DistillationLoss
from fgc_mm.registry import MODELS


def dense_cfg(classes=10, channels=4):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='fgc_mm.CifarResNet', base_channels=channels),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=classes,
            in_channels=4 * channels,
        ),
    )


@pytest.fixture
def teacher(tmp_path):
    """Config and checkpoint of a dense network, and the network."""

    def make(**options):
        torch.manual_seed(5)
        network = MMPRETRAIN.build(dense_cfg(**options)).eval()
        path = tmp_path / 'dense.pth'
        torch.save(dict(state_dict=network.state_dict()), path)
        return dense_cfg(**options), str(path), network

    return make


@pytest.fixture
def batch(tiny):
    return torch.randn(4, 3, 16, 16), tiny.samples([3, 1, 4, 1])


def student(tiny, cfg, path, **options):
    built = tiny.cfg()
    built['distillation'] = dict(teacher=cfg, checkpoint=path, **options)
    torch.manual_seed(0)
    return MODELS.build(built)


def test_against_loops():
    ours, theirs = torch.randn(3, 5), torch.randn(3, 5)
    total = 0.0
    for s, t in zip((ours / 4).softmax(1), (theirs / 4).softmax(1)):
        total += sum(
            (q * (q.log() - p.log())).item() for p, q in zip(s, t)
        )  # fmt: skip
    loss = DistillationLoss(loss_weight=0.5)
    assert loss(ours, theirs).item() == pytest.approx(
        0.5 * 16 * total / 3, rel=1e-4
    )
    assert loss(theirs, theirs).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('independent', [False, True])
def test_scores_of_half_a_type_are_divided_in_float32(independent):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 4, 5, generator=generator).bfloat16()
    loss = DistillationLoss(3, independent_labels=independent)
    found = loss(ours, theirs)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(ours.float(), theirs.float()))


def test_the_classifier_learns_from_the_teachers_scores(tiny, teacher, batch):
    cfg, path, network = teacher()
    model = student(tiny, cfg, path, temperature=2, loss_weight=3.0)
    model.eval()
    losses = model.loss(*batch)
    with torch.no_grad():
        answers = network.head(network.extract_feat(batch[0]))
        ours = model.head(model.extract_feat(batch[0]))
    want = DistillationLoss(2, 3.0)(ours, answers)
    torch.testing.assert_close(losses['loss_distillation'], want)
    total, _ = model.parse_losses(losses)
    parts = losses['loss_cls'] + losses['loss_distillation']
    torch.testing.assert_close(total, parts)


def test_the_teacher_is_neither_trained_nor_saved(tiny, teacher, batch):
    cfg, path, network = teacher()
    model = student(tiny, cfg, path).train()
    plain = tiny.build()
    assert set(model.state_dict()) == set(plain.state_dict())
    for _ in range(2):
        model.parse_losses(model.loss(*batch))[0].backward()
    inside = model._teacher.network
    assert all(p.grad is None for p in inside.parameters())
    for key, value in inside.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key


def test_a_teacher_of_other_classes_is_refused(tiny, teacher):
    cfg, path, _ = teacher(classes=7)
    with pytest.raises(FGCError, match=r'has 7 classes and the student 10'):
        student(tiny, cfg, path)


def test_a_checkpoint_of_another_network_is_refused(tiny, teacher):
    _, path, _ = teacher(channels=8)
    words = r'dense\.pth is a checkpoint of another .*: size mismatch for .*;'
    with pytest.raises(FGCError, match=words + ' give the config'):
        student(tiny, dense_cfg(), path)
    with pytest.raises(FGCError, match=r'temperature=0'):
        student(tiny, dense_cfg(channels=8), path, temperature=0)


def test_weights_of_a_wrapper_without_counters(tiny, teacher):
    """As of DistributedDataParallel; nothing reads the counters."""
    cfg, path, network = teacher()
    state = {
        f'module.{key}': value
        for key, value in network.state_dict().items()
        if 'num_batches_tracked' not in key
    }
    torch.save(dict(state_dict=state), path)
    inside = student(tiny, cfg, path)._teacher.network
    for key, value in inside.named_parameters():
        assert torch.equal(value, network.state_dict()[key]), key
    state.pop('module.head.fc.bias')
    torch.save(dict(state_dict=state), path)
    with pytest.raises(FGCError, match=r'1 weights .* \(head\.fc\.bias'):
        student(tiny, cfg, path)


def test_a_teacher_for_images_of_another_size(tiny, tmp_path):
    """Its position embedding is resized when it is loaded."""
    arch = dict(
        embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32
    )
    cfg = dense_cfg()
    cfg['backbone'] = dict(
        type='VisionTransformer', patch_size=8, arch=arch, img_size=16,
        out_type='featmap',
    )  # fmt: skip
    path = tmp_path / 'vit.pth'
    torch.save(MMPRETRAIN.build(cfg).state_dict(), path)
    cfg['backbone']['img_size'] = 32
    inside = student(tiny, cfg, str(path))._teacher.network
    assert inside.backbone.pos_embed.shape == (1, 17, 16)


def test_the_teacher_rests_while_its_weight_is_zero(
    tiny, teacher, batch, monkeypatch
):
    cfg, path, _ = teacher()
    weight = dict(start_value=0.0, end_value=1.0, begin=2, end=2)
    model = student(tiny, cfg, path, loss_weight=weight)
    calls, own = [], model._teacher.scores
    monkeypatch.setattr(
        model._teacher, 'scores', lambda x: calls.append(1) or own(x)
    )
    for epoch, runs in ((1, 0), (2, 1)):
        model.progress = Progress(epoch, epoch)
        loss = model.loss(*batch)['loss_distillation']
        assert (loss.shape, len(calls)) == ((), runs)
        assert bool(loss) == bool(runs)
