"""The recipe without batch shaping: its parts, at any length."""

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from fgc_mm.cli.commands import train
from fgc_mm.comparison.entry import Entry, Start
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.study import Study
from fgc_mm.engine.scaled_schedule import scale_epochs
from fgc_mm.functional.schedule import Progress, Schedule

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
PATH = CONFIGS / 'fgcplus_resnet20_folder16_55.py'
FROM_DENSE = CONFIGS / 'fgcplus_from_dense_resnet20_folder16_55.py'
DISTILLED = CONFIGS / 'fgcplus_distilled_resnet20_folder16_55.py'
WIDE_TEACHER = CONFIGS / 'fgcplus_wide_teacher_resnet20_folder16_55.py'
DENSE = CONFIGS / 'dense_resnet20_folder16.py'


@pytest.mark.parametrize('epochs', [500, 30, 8])
def test_the_budget_falls_slowly(epochs):
    cfg = scale_epochs(Config.fromfile(PATH), epochs)
    macs, coupling = cfg.model.gate_losses
    gate = cfg.model.backbone.gate

    def value(moving, epoch):
        return Schedule.build(moving, 'x').at(Progress(epoch, 0))

    assert value(macs.pruning_ratio, 0) == 0
    assert 0 < value(macs.pruning_ratio, epochs // 5) < 0.55
    assert value(macs.pruning_ratio, epochs // 2) == 0.55
    assert value(gate.noise, epochs // 2) == value(gate.noise, 0) == 1
    assert value(gate.noise, epochs - 1) == 0
    assert value(gate.temperature, 0) == pytest.approx(2 / 3, abs=0.01)
    assert 0.5 < value(gate.temperature, epochs // 2) < 2 / 3
    assert coupling.loss_weight == 0.003
    assert 1 <= coupling.warmup_epochs <= epochs // 5
    assert cfg.param_scheduler.T_max == epochs


@pytest.mark.parametrize('path', [PATH, FROM_DENSE, DISTILLED, WIDE_TEACHER])
def test_it_is_the_dense_network_with_gates(path):
    plus, dense = map(Config.fromfile, (path, DENSE))
    assert plus.model.backbone.backbone == dense.model.backbone
    assert plus.model.head == dense.model.head
    assert plus.train_dataloader == dense.train_dataloader
    fgc = Config.fromfile(CONFIGS / 'fgc_resnet20_folder16_55.py')
    sites = fgc.model.gate_losses[-1].sites
    assert plus.model.gate_losses[-1].sites == sites


def test_the_wide_teacher_is_the_wide_dense_network():
    wide = Config.fromfile(CONFIGS / 'dense_wide_resnet20_folder16.py').model
    for student in ('fgcplus_wide_teacher', 'dense_wide_teacher'):
        (path,) = CONFIGS.glob(f'{student}_resnet20_folder16*.py')
        model = Config.fromfile(path).model
        teacher = model.distillation.teacher
        assert teacher.backbone == wide.backbone
        assert teacher.neck == wide.neck
        assert teacher.head.in_channels == wide.head.in_channels == 128
        assert model.head.in_channels == 64


def test_a_comparison_names_the_teacher_also_when_it_resumes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr('fgc_mm.comparison.plan.check_data', lambda *_: None)
    monkeypatch.setattr('fgc_mm.comparison.plan._images', lambda *_: None)
    entry = Entry(str(FROM_DENSE), start=Start(str(DENSE)))
    start, run = plan(Study('x', (entry,), (3,), 30), tmp_path)
    assert not any('distillation' in word for word in start.next_step()[1])
    first = tmp_path / f'runs/start_{DENSE.stem}/seed3/epoch_30.pth'
    teacher = f'model.distillation.checkpoint={first}'
    command = run.next_step()[1]
    assert teacher in command and f'load_from={first}' in command
    monkeypatch.setattr(
        'fgc_mm.comparison.run.latest_checkpoint', lambda *_: (first, '')
    )
    command = run.next_step()[1]
    assert teacher in command and '--resume' in command
    assert f'load_from={first}' not in command


@pytest.mark.parametrize(
    ('own', 'resume', 'want'),
    [
        (None, False, 'dense.pth'),
        ('other.pth', False, 'other.pth'),
        (None, True, None),  # load_from is the student's own then
    ],
)
def test_the_teacher_has_the_weights_that_a_run_starts_from(own, resume, want):
    cfg = ConfigDict(
        model=dict(distillation=dict(checkpoint=own)),
        load_from='dense.pth',
        resume=resume,
    )
    train.set_teacher_checkpoint(cfg)
    assert cfg.model.distillation.checkpoint == want
    train.set_teacher_checkpoint(
        Config(dict(model=dict(), load_from='dense.pth'))
    )
