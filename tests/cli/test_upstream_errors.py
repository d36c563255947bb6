"""Errors of torch, mmengine and OpenCV that a config causes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmpretrain.models.heads import LinearClsHead
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from fgc_mm.cli.commands.get_macs import count
from fgc_mm.cli.run_tool import _sentence
from fgc_mm.cli.upstream_errors import upstream_sentence
from fgc_mm.deploy.loading import build_model
from fgc_mm.errors import FGCError
from fgc_mm.registry import MODELS
from fgc_mm.reliability.atomic_file import write_atomically


def sentence(call):
    """What a user reads about the error of a call."""
    with pytest.raises(Exception) as caught:
        call()
    return upstream_sentence(caught.value)


def optimizer(**settings):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1, **settings))
    return lambda: build_optim_wrapper(nn.Linear(1, 1), wrapper)


@pytest.mark.parametrize(
    'settings', [dict(weight_decay=-1), dict(momentum='x'), dict(momentum=-1)]
)
def test_settings_of_the_optimizer(settings):
    said = sentence(optimizer(**settings))
    assert said.startswith('the optimizer refuses a setting')


def test_synchronised_norms_on_a_cpu():
    """One process of its own trains with them, as mmengine reverts them."""
    store = dist.HashStore()
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        norm = nn.SyncBatchNorm(2)
        said = sentence(lambda: MMDistributedDataParallel(module=norm))
    finally:
        dist.destroy_process_group()
    assert "norm_cfg=dict(type='BN')" in said and 'on GPUs only' in said


def test_an_unknown_optimizer():
    wrapper = dict(optimizer=dict(type='Adamm', lr=0.1))
    wrapper['paramwise_cfg'] = dict(norm_decay_mult=0)
    said = sentence(lambda: build_optim_wrapper(nn.Linear(1, 1), wrapper))
    assert 'optim_wrapper.optimizer' in said


def test_a_part_that_lacks_an_argument():
    said = sentence(
        lambda: MODELS.build(dict(type='fgc_mm.MaskPredictionLoss'))
    )
    assert "argument: 'ratio'; set what is missing" in said

    def bug():
        raise TypeError("f.__init__() missing 1 argument: 'x'")

    assert sentence(bug) is None


def test_an_average_that_begins_after_the_run():
    hook, runner = EMAHook(begin_epoch=5), SimpleNamespace(max_epochs=2)
    said = sentence(lambda: hook.before_train(runner))
    assert said.startswith(
        'EMAHook has begin_epoch=5 and the run has max_epochs=2'
    )
    hook, runner = EMAHook(begin_iter=50), SimpleNamespace(max_iters=20)
    assert 'set a lower begin_iter' in sentence(
        lambda: hook.before_train(runner)
    )


def test_features_of_another_width():
    head = LinearClsHead(num_classes=3, in_channels=9)
    said = sentence(lambda: head((torch.zeros(2, 8),)))
    assert '(2x8 and 9x3)' in said and 'in_channels of the head' in said


def test_another_product_of_wrong_shapes_is_a_bug():
    assert sentence(lambda: torch.zeros(2, 8) @ torch.zeros(9, 3)) is None


def test_a_size_that_opencv_refuses():
    picture = dict(img=np.zeros((4, 4, 3), np.uint8))
    said = sentence(lambda: Resize(scale=(16, -1))(picture))
    assert 'OpenCV cannot do a step of a pipeline' in said


def test_a_batch_of_no_image():
    said = sentence(lambda: DataLoader([1], batch_size=0))
    assert 'batch_size of at least 1' in said


def test_macs_of_a_head_that_does_not_fit():
    cfg = Config(
        dict(
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='LeNet5'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=7),
            )
        )
    )
    with pytest.raises(FGCError, match='in_channels of the head'):
        count(cfg, build_model(cfg), (32, 32))


def test_a_config_whose_model_is_none():
    with pytest.raises(FGCError, match='has no model'):
        build_model(Config(dict(model=None)))


def test_a_file_that_cannot_be_put_in_place(tmp_path):
    (tmp_path / 'model').mkdir()
    with pytest.raises(OSError) as caught:
        write_atomically(b'x', tmp_path / 'model')
    assert '.part' not in _sentence(caught.value)
    assert f'{tmp_path / "model"}: ' in _sentence(caught.value)


def test_a_bug_in_the_step_of_an_optimizer_keeps_its_traceback():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            raise TypeError('of its author')

    assert sentence(Own(nn.Linear(1, 1).parameters(), lr=0.1).step) is None
