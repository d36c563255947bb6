"""Checks and settings of a config before a training."""

from argparse import Namespace

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands import train
from fgc_mm.cli.commands.train import check_parts, choose_start
from fgc_mm.errors import FGCError


def test_a_config_of_a_model_alone():
    cfg = Config(dict(model=dict(type='ImageClassifier'), train_cfg={}))
    with pytest.raises(FGCError, match='no train_dataloader, optim_wrapper,'):
        check_parts(cfg)


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('start', [None, 'weights.pth'])
@pytest.mark.parametrize('resume', [None, 'auto', 'other.pth'])
def test_a_repeated_command_continues_the_run(own, start, resume, monkeypatch):
    """It does not begin anew with ``load_from``, nor resume that."""
    monkeypatch.setattr(train, 'has_checkpoint', lambda _: own)
    cfg = Config(dict(load_from=start, resume=False))
    choose_start(cfg, resume)
    if resume == 'other.pth':
        want = True, 'other.pth'
    elif resume == 'auto' and own:
        want = True, None  # the newest of the work dir
    else:
        want = False, start
    assert (cfg.resume, cfg.load_from) == want


def test_options_do_not_replace_the_checkpoint_of_resume(
    tmp_path, monkeypatch
):
    args = Namespace(
        config='x.py', no_validate=False, launcher='none', resume='auto',
        work_dir=str(tmp_path), auto_scale_lr=False, no_pin_memory=False,
        no_persistent_workers=False,
        cfg_options=['load_from=weights.pth'],
    )  # fmt: skip
    monkeypatch.setattr(train, 'has_checkpoint', lambda _: True)
    cfg = Config(dict(model=dict()))
    train.apply_arguments(cfg, args)
    assert cfg.resume is True and cfg.load_from is None
    monkeypatch.setattr(train, 'has_checkpoint', lambda _: False)
    train.apply_arguments(cfg, args)
    assert cfg.resume is False and cfg.load_from == 'weights.pth'
