"""A config that has a model and nothing to train it with."""

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands.train import check_parts
from fgc_mm.errors import FGCError


def test_a_config_of_a_model_alone():
    cfg = Config(dict(model=dict(type='ImageClassifier'), train_cfg={}))
    with pytest.raises(FGCError, match='no train_dataloader, optim_wrapper,'):
        check_parts(cfg)
