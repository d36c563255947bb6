"""Every command of docs/reproduce.md runs to its end, on a few digits.

The commands run as they stand on the page, in order and in this process, in
a folder whose configs/ has the same names: each is the real config with
digits for images, a small network and two epochs. Of a plan all rows are
planned and their losses built, but one trained, and of several ways to prune
statically one; with FGC_EVERY_ROW=1 all of them. That takes minutes, so
`make test-page` runs the commands; `make test` builds what the plans plan.
"""

import csv
import os
import re
import shlex
from dataclasses import replace

import pytest
import torch
from mmpretrain.registry import MODELS

from fgc_mm.comparison.documents.blocks import update_blocks
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.table import PUBLISHED_FILE, read_published
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override, read_options

from .tiny_page import (
    EPOCHS,
    EVERY_ROW,
    ROOT,
    narrow_published,
    run_tool,
    tiny_config,
    tiny_epochs,
    tiny_plan,
)

PAGE = (ROOT / 'docs' / 'reproduce.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
PLANS = [x for x in COMMANDS if '--plan' in x]
# what compares, and what starts from that
COMPARISONS = [
    line
    for block in BLOCKS
    if 'tools/compare.py' in block
    for line in block.splitlines()
]
NEEDS_MINUTES = pytest.mark.skipif(
    not os.environ.get('FGC_TEST_PAGE'), reason='make test-page runs it'
)
# tools whose command takes --epochs
TRAINING = 'train', 'compare'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """configs/ in tiny, and the published code's checkpoint."""
    folder = tmp_path_factory.mktemp('page')
    (folder / 'configs' / 'studies').mkdir(parents=True)
    names = set(re.findall(r'configs/(\w+)\.py', PAGE))
    for command in PLANS:
        text = (ROOT / shlex.split(command)[3]).read_text()
        names |= set(re.findall(r'\.\./(\w+)\.py', text))
    for name in names:
        cfg = tiny_config(ROOT / 'configs' / f'{name}.py')
        cfg.dump(folder / 'configs' / f'{name}.py')
    torch.save(narrow_published(), folder / 'resnet20-99-BAS.pth')
    return folder


def prepared(command, folder):
    """Tool and arguments, in tiny."""
    python, tool, *arguments = shlex.split(tiny_epochs(command))
    assert python == 'python' and (ROOT / tool).is_file()
    name = tool.removeprefix('tools/').removesuffix('.py')
    if name in TRAINING:
        arguments += ['--epochs', str(EPOCHS)]
    if name == 'analysis_tools/analyze_gates':
        arguments += ['--embedding', 'pca']
    if name == 'compare':
        arguments += ['--seeds', '0']
        static = [argument for argument in arguments if ':' in argument]
        for argument in () if EVERY_ROW else static[1:]:
            arguments.remove(argument)
    if '--plan' in arguments:
        place = arguments.index('--plan') + 1
        text = (ROOT / arguments[place]).read_text()
        (folder / arguments[place]).write_text(tiny_plan(text, EVERY_ROW))
    return name, arguments


@pytest.mark.parametrize('command', PLANS)
def test_every_row_of_a_plan_is_planned_and_built(
    command, folder, monkeypatch, tmp_path
):
    monkeypatch.chdir(folder)
    file = folder / shlex.split(command)[3]
    whole = file.with_name(f'whole_{file.name}')
    text = (ROOT / shlex.split(command)[3]).read_text()
    whole.write_text(tiny_plan(text, every=True))
    study = read_study(whole)
    runs = plan(replace(study, seeds=(0,), epochs=EPOCHS), tmp_path)
    assert {run.method.name for run in runs} >= {
        entry.row for entry in study.entries
    }
    for run in runs:
        cfg = load_config(str(run.method.config))
        options = read_options(run.method.options)
        override(cfg, options)
        for loss in cfg.model.get('gate_losses', ()):
            MODELS.build(loss)


@NEEDS_MINUTES
@pytest.mark.parametrize(
    'commands',
    [
        pytest.param([x for x in COMMANDS if x not in COMPARISONS], id='runs'),
        pytest.param(COMPARISONS, id='comparisons'),
    ],
)
def test_every_command_runs_to_its_end(commands, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv('LOCAL_RANK', '0')
    outcomes = []
    for command in commands:
        code = run_tool(*prepared(command, folder))
        said = re.findall('^error: .*', capfd.readouterr().err, re.MULTILINE)
        outcomes.append((command, 'ok' if not code else f'{code}: {said}'))
    text = '\n'.join(f'{outcome}: {command}' for command, outcome in outcomes)
    assert {outcome for _, outcome in outcomes} == {'ok'}, text
    assert len(outcomes) > 7
    if commands != COMPARISONS:
        return
    for command in PLANS:
        work_dir = folder / shlex.split(command)[5]
        assert (work_dir / 'compare.md').is_file()
        assert (work_dir / 'compare.png').is_file()
        has_axis = '\naxis:' in (ROOT / shlex.split(command)[3]).read_text()
        assert (work_dir / 'sweep.png').is_file() == has_axis
    # half of the filters of every first conv: half of these layers' MACs
    with (folder / 'work_dirs' / 'sfp' / 'compare.csv').open() as file:
        pruned = next(csv.DictReader(file))['macs/pruning_ratio_mean']
    assert 40 < float(pruned) < 55


def test_the_page_has_the_published_numbers_and_no_others():
    rows = read_published(PUBLISHED_FILE)
    known = {f'{r["error"]} @ {r["pruning_ratio"]}' for r in rows}
    shown = set(re.findall(r'\d+\.\d+ @ \d+(?:\.\d+)?', PAGE))
    assert shown <= known
    # all of FGC's are there
    fgc = {
        f'{r["error"]} @ {r["pruning_ratio"]}'
        for r in rows
        if r['method'].startswith('FGC') and r['pruning_ratio']
    }
    assert fgc <= shown
    by_k = {r['method'].partition('K=')[2]: r['error'] for r in rows}
    head, line = (
        [cell.strip() for cell in row.split('|')[2:-1]]
        for row in PAGE.splitlines()
        if row.startswith(('| K |', '| published error |'))
    )
    assert dict(zip(head, line)) == {k: v for k, v in by_k.items() if k}


def test_our_numbers_are_those_that_were_kept():
    assert update_blocks(PAGE, ROOT) == PAGE
