"""tools/train.py fails where nothing is trained, whatever the config's hooks.

The project's config has mmengine's hooks only.
"""

import pytest

from .conftest import error_lines

CONFIG = """
_base_ = {base!r}
param_scheduler = {scheduler}
train_dataloader = dict(batch_size=9, drop_last=True)
"""
# its build divides by the length of an epoch, before any hook is called
BY_STEPS = dict(
    _delete_=True, type='LinearLR', end=1, convert_to_iter_based=True
)


@pytest.mark.parametrize('scheduler', [None, BY_STEPS], ids=['none', 'steps'])
@pytest.mark.parametrize('kind', ['batch', 'epochs'])
def test_nothing_to_train(tool, project, tmp_path, scheduler, kind):
    config, work_dir = tmp_path / 'config.py', tmp_path / 'work'
    base = str(project / 'tiny net.py')
    config.write_text(CONFIG.format(base=base, scheduler=scheduler))
    options = dict(batch='resume=False', epochs='train_cfg.max_epochs=0')
    if kind == 'epochs':
        options['epochs'] += ' train_dataloader.batch_size=2'
    code, text = tool(
        'train', config, '--work-dir', work_dir,
        '--cfg-options', *options[kind].split(),
    )  # fmt: skip
    (line,) = error_lines(text)
    said = dict(
        batch='batch_size=9 with drop_last=True leaves no training step of 8',
        epochs='max_epochs (or max_iters) of train_cfg is 0',
    )
    assert code == 2 and said[kind] in line
    assert not list(work_dir.glob('*.pth'))
