"""Methods that share one first stage per seed."""

from pathlib import Path

import pytest
import torch

from fgc_mm.cli.command_table import COMMANDS, find_command
from fgc_mm.comparison.entry import Entry, Start, split_entry
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.results import write_result
from fgc_mm.comparison.study import Study
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from .test_fgc_pr import published

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STAGE1 = CONFIGS / 'bas_resnet20_digits_stage1.py'
STAGE2 = [
    CONFIGS / f'{method}_resnet20_digits_stage2.py'
    for method in ('bas', 'fgc')
]
TINY = (
    'model.backbone.backbone.base_channels=4',
    'model.head.in_channels=16',
    'train_dataloader.batch_size=8',
    'train_dataloader.dataset.indices=24',
    'val_dataloader.dataset.indices=10',
    'test_dataloader.dataset.indices=10',
)


def planned(folder, entries=STAGE2, start=STAGE1, seeds=(0,), options=TINY):
    rows = []
    for entry in entries:
        importance, config = split_entry(str(entry))
        rows.append(Entry(config, importance, start=Start(str(start), 1)))
    return plan(Study('x', tuple(rows), seeds, 1, options), folder)


def do(tool, run, times):
    """The next steps of a run, in this process."""
    for _ in range(times):
        _, command = run.next_step()
        run.folder.mkdir(parents=True, exist_ok=True)
        name, arguments = find_command(command[3:])
        code, said = tool(COMMANDS[name].module, *arguments)
        assert code == 0, said


def test_each_seed_trains_one_stage_for_all(tmp_path):
    first, other, *rest = planned(tmp_path, seeds=(0, 1))
    assert [run.method.name for run in (first, other)] == [
        'start_bas_resnet20_digits_stage1'
    ] * 2
    assert len(rest) == 4
    assert all(run.start in (first, other) for run in rest)
    for run in rest:
        _, command = run.next_step()
        assert run.start.seed == run.seed
        assert command[-1] == f'load_from={run.start.last_checkpoint}'


def test_a_gated_stage_is_trained_tested_and_gone_on_from(tool, tmp_path):
    first, bas, fgc = planned(tmp_path)
    do(tool, first, 2)
    assert first.next_step() is None
    result = write_result(first, 1)
    assert result['dynamic']
    assert result['environment']['torch'] == torch.__version__
    # a rate of 0 keeps the weights that the second stage begins with
    start = read_checkpoint(first.last_checkpoint)['state_dict']
    for run in (bas, fgc):
        frozen = 'optim_wrapper.optimizer.lr=0'
        object.__setattr__(run.method, 'options', (*TINY, frozen))
        do(tool, run, 1)
        found = read_checkpoint(run.last_checkpoint)
        names = [n for n in start if 'running' not in n and 'num_' not in n]
        assert len(names) > 50
        for name in names:
            assert torch.equal(found['state_dict'][name], start[name]), name
        assert ('fgc_memory_banks' in found) == (run is fgc)


@pytest.mark.parametrize(
    ('entry', 'start', 'told'),
    [
        (CONFIGS / 'dense_resnet20_digits.py', STAGE1, 'has no gates and'),
        (f'fpgm:{CONFIGS}/dense_resnet20_digits.py', STAGE1, 'prunes a dense'),
        (
            CONFIGS / 'fgc_resnet56_cifar10_stage2.py',
            CONFIGS / 'bas_resnet20_cifar10_stage1.py',
            'a backbone of depth=56 and cannot start from',
        ),
        (
            CONFIGS / 'ftwt_vgg16_cifar10.py',
            CONFIGS / 'dense_resnet20_cifar10.py',
            "of type='VGG'",
        ),
    ],
)
def test_a_start_whose_weights_do_not_fit_is_refused(
    tmp_path, entry, start, told
):
    with pytest.raises(FGCError, match=told):
        planned(tmp_path, [entry], start, options=())
    assert not list(tmp_path.iterdir())


def test_the_second_stage_starts_from_a_converted_checkpoint(tool, tmp_path):
    """Of the published code's BAS stage, which has no banks."""
    state = published()
    state['state_dict'] = {
        k: v for k, v in state['state_dict'].items() if '_mb.' not in k
    }
    torch.save(state, tmp_path / 'published.pth')
    converted = tmp_path / 'converted.pth'
    code, said = tool(
        'model_converters/fgc_pr', tmp_path / 'published.pth', converted
    )
    assert code == 0, said
    code, said = tool(
        'train', STAGE2[1], '--work-dir', tmp_path / 'run', '--epochs', '1',
        '--no-validate',
        '--cfg-options', *TINY[2:4], f'load_from={converted}',
        'optim_wrapper.optimizer.lr=0',
    )  # fmt: skip
    assert code == 0, said
    weights = read_checkpoint(converted)['state_dict']
    trained = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')
    assert trained['meta']['epoch'] == 1  # a start, not a resumption
    for name, value in weights.items():
        if 'running' not in name and 'num_' not in name:
            assert torch.equal(trained['state_dict'][name], value), name
    assert trained['state_dict'].keys() == weights.keys()
