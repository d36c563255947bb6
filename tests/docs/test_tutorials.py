"""The Python of README.md and docs/ runs as it is printed on the page.

The blocks of a page run in order, in one namespace, in an empty folder. A
comment above a block says what is different: ``config`` is read as a config
whose parts are built, ``given: NAMES`` gets these from here, and ``not run:
REASON`` is compiled only.
"""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import HOOKS, METRICS, MODELS

from .pages import PAGES, ROOT, python_blocks

WITH_PYTHON = [page for page in PAGES if python_blocks(page)]


@pytest.fixture
def given(tiny):
    """What a reader of README has."""
    images = torch.rand(
        8, 3, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    return dict(model=tiny.build().eval(), images=images)


def build_config(code, folder):
    """Read a block as a config in the repository's root; build its parts."""
    file = folder / 'block.py'
    file.write_text(code)
    cfg = Config.fromfile(file)
    if 'model' in cfg:
        MODELS.build(cfg.model)
    for hook in cfg.get('custom_hooks', ()):
        HOOKS.build(hook)
    evaluators = cfg.get('val_evaluator', ())
    for metric in evaluators if isinstance(evaluators, list) else ():
        METRICS.build(metric)


@pytest.mark.parametrize('page', WITH_PYTHON, ids=lambda page: page.stem)
def test_blocks_run(page, given, tmp_path, monkeypatch):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    names = {'__name__': 'tutorial'}
    for block in python_blocks(page):
        kind, _, rest = block.mark.partition(': ')
        code = '\n' * (block.line - 1) + block.code
        compiled = compile(code, page.name, 'exec')
        if kind == 'config':
            build_config(block.code, tmp_path)
        elif kind == 'given':
            names.update({name: given[name] for name in rest.split(', ')})
            exec(compiled, names)
        elif kind != 'not run':
            assert not kind, f'{page.name}:{block.line}: {block.mark}'
            exec(compiled, names)


def test_the_tutorials_are_among_them():
    names = {page.stem for page in WITH_PYTHON}
    assert names >= {
        'README', 'backbones', 'budget', 'make_it_fast', 'new_method'
    }  # fmt: skip
