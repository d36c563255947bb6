"""The result of a run whose network is made from options."""

import json
import shutil

import pytest

from fgc_mm.comparison.entry import Entry, Start
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.results import write_result
from fgc_mm.comparison.study import Study

DENSE = 'dense_resnet20_digits.py'
NARROW = 'model.backbone.base_channels=4', 'model.head.in_channels=16'


@pytest.fixture
def run(tmp_path):
    """Pruned from a narrow network, of which it has kept everything."""
    entry = Entry(DENSE, 'fpgm', start=Start(DENSE, 1))
    study = Study('x', (entry,), (0,), 1, NARROW)
    *_, run = plan(study, tmp_path)
    run.metrics.write_text(json.dumps({'accuracy/top1': 90.0}))
    run.trained_config.write_text(
        f"_base_ = [__import__('fgc_mm').config_file('{DENSE}')]\n"
        'model = dict(backbone=dict(base_channels=4), '
        'head=dict(in_channels=16))\n'
    )
    return run


def test_a_pruned_network_is_compared_with_the_dense_one_of_its_options(run):
    result = write_result(run, 1)
    assert result['macs/pruning_ratio'] == 0
    assert result['macs/mean'] == result['macs/dense']


def test_the_environment_is_that_of_the_training(run):
    """Another node's, say."""
    log = run.folder / '20260101'
    (log / 'vis_data').mkdir(parents=True)
    (log / 'environment.json').write_text('{"CPU": "of a node"}')
    assert write_result(run, 2)['environment']['CPU'] == 'unknown'
    (log / 'vis_data' / 'scalars.json').touch()
    # of a process that was refused, since the run was in use
    shutil.copytree(
        log, run.folder / '20260102', ignore=lambda *_: ['vis_data']
    )
    found = write_result(run, 2)['environment']
    assert found == {'CPU': 'of a node', 'threads per run': '2'}


@pytest.mark.parametrize('same', [True, False])
def test_the_last_epoch_counts_if_its_validation_is_missing(run, same):
    """The run was stopped in it, and it is not repeated."""
    with run.trained_config.open('a') as file:
        if not same:
            file.write('val_dataloader = dict(dataset=dict(indices=9))\n')
    log = run.folder / '20260101' / 'vis_data'
    log.mkdir(parents=True)
    lines = [{'accuracy/top1': 40.0, 'step': 0}, {'epoch': 1, 'loss': 1.0}]
    text = '\n'.join(map(json.dumps, lines))
    (log / 'scalars.json').write_text(text)
    result = write_result(run, 1)
    assert result['error'] == 10
    assert result['best_error'] == (10 if same else 60)
    # a validation of the last epoch is that, whatever the test says
    text += '\n' + json.dumps({'accuracy/top1': 80.0, 'step': 1})
    (log / 'scalars.json').write_text(text)
    assert write_result(run, 1)['best_error'] == 20
