"""A masked model's weights in a dynamic one."""

import copy

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic import calibrate


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibrate, 'REPEATS', 1)
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)


@pytest.fixture(scope='module')
def trained(classifier, pictures):
    """A model, the same after some training, and images."""
    model, _ = classifier()
    later = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    for name, values in later.state_dict().items():
        if values.is_floating_point() and 'gates' not in name:
            factor = torch.rand(values.shape, generator=generator) + 0.5
            values.mul_(factor)
    return model, later, pictures(16, 3)


@torch.no_grad()
def answers(model, images):
    return torch.cat([model(image) for image in images.split(1)])


@pytest.mark.parametrize('backend', ['auto', 'torch'])
def test_a_masked_checkpoint_is_loaded(trained, tmp_path, backend, capsys):
    model, later, images = trained
    dynamic = to_dynamic(model, images, backend=backend)
    want = answers(later, images)
    assert not torch.allclose(answers(dynamic, images), want, atol=1e-2)
    torch.save({'state_dict': later.state_dict()}, tmp_path / 'masked.pth')
    capsys.readouterr()
    load_checkpoint(dynamic, str(tmp_path / 'masked.pth'), strict=True)
    assert 'do not match' not in capsys.readouterr().out
    torch.testing.assert_close(
        answers(dynamic, images), want, atol=1e-4, rtol=1e-4
    )
    # its own metadata is used unchanged
    again = copy.deepcopy(dynamic)
    again.load_state_dict(dynamic.state_dict())
    assert torch.equal(answers(again, images), answers(dynamic, images))


def test_the_backbone_alone_and_a_plain_checkpoint(trained):
    model, later, images = trained
    dynamic = to_dynamic(model, images, backend='torch')
    other = copy.deepcopy(dynamic)
    dynamic.backbone.load_state_dict(later.backbone.state_dict())
    # a plain network's: as FGC's wrapper takes it, but for the gates
    plain = later.backbone.backbone.state_dict()
    missing, unexpected = other.backbone.load_state_dict(plain, strict=False)
    assert unexpected == []
    assert all(key.startswith('gates.') for key in missing)
    for one in (dynamic, other):
        want = torch.cat([later.backbone(x)[-1] for x in images.split(1)])
        torch.testing.assert_close(
            one.backbone(images)[-1], want, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize('backend', ['auto', 'torch'])
def test_parameters_changed_in_place(trained, backend):
    """Forward, predictions and copies all follow, and only once."""
    model, _, images = trained
    dynamic = to_dynamic(model, images, backend=backend)
    before = answers(dynamic, images)
    programs = {**dynamic.backbone._programs}
    answers(dynamic, images)
    assert dynamic.backbone._programs == programs
    with torch.no_grad():
        dynamic.head.fc.weight.mul_(-1)
        next(iter(dynamic.backbone.gates.values())).expand.bias.fill_(-50)
    changed = copy.deepcopy(model)
    changed.load_state_dict(dynamic.state_dict())
    want = answers(changed, images)
    assert not torch.allclose(before, want, atol=1e-2)
    got = answers(dynamic, images)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    programs = {**dynamic.backbone._programs}
    scores = torch.stack([x.pred_score for x in dynamic.predict(images)])
    torch.testing.assert_close(got.softmax(1), scores, atol=1e-4, rtol=1e-4)
    assert dynamic.backbone._programs.items() >= programs.items()
    assert torch.equal(answers(copy.deepcopy(dynamic), images), got)


@pytest.mark.parametrize('backend', ['auto', 'torch'])
def test_buffers_changed_in_place(trained, backend):
    """Statistics of norms, as after they were computed again."""
    model, _, images = trained
    dynamic = to_dynamic(model, images, backend=backend)
    before = answers(dynamic, images)
    norms = [
        module
        for module in dynamic.backbone.backbone.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    for norm in norms[:4]:
        norm.running_mean.add_(0.5)
    next(iter(dynamic.backbone.gates.values())).norm.running_var.mul_(4)
    changed = copy.deepcopy(model)
    changed.load_state_dict(dynamic.state_dict())
    want = answers(changed, images)
    assert not torch.allclose(before, want, atol=1e-2)
    got = answers(dynamic, images)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    programs = {**dynamic.backbone._programs}
    answers(dynamic, images)
    assert dynamic.backbone._programs == programs


def test_a_parameter_changed_while_a_program_is_made(trained, monkeypatch):
    """By another thread; also if an earlier program has the same weights."""
    model, _, images = trained
    dynamic = to_dynamic(model, images, backend='torch')
    check = type(dynamic.backbone)._check_program

    def changed_after(self, *arguments):
        problem = check(self, *arguments)
        with torch.no_grad():
            dynamic.head.fc.weight.neg_()
        return problem

    smaller = images[:, :, :8, :8].contiguous()
    monkeypatch.setattr(
        type(dynamic.backbone), '_check_program', changed_after
    )
    answers(dynamic, smaller[:1])
    monkeypatch.undo()
    changed = copy.deepcopy(model)
    changed.load_state_dict(dynamic.state_dict())
    for size in (smaller, images):
        torch.testing.assert_close(
            answers(dynamic, size), answers(changed, size),
            atol=1e-4, rtol=1e-4,
        )  # fmt: skip
