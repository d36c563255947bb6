"""Configs that leave numbers to the optimizer, and multiply them."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from fgc_mm.cli.upstream_errors import upstream_sentence
from fgc_mm.engine.optimizer_defaults import write_optimizer_defaults

GATES = dict(custom_keys={'gates': dict(decay_mult=0.0)})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.line = (torch.nn.Linear(2, 2) for _ in range(2))


def groups(**optimizer):
    cfg = Config(
        dict(
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=optimizer, paramwise_cfg=GATES
            )
        )
    )
    write_optimizer_defaults(cfg)
    wrapper = build_optim_wrapper(Net(), cfg.optim_wrapper)
    gates, _, line, *_ = wrapper.param_groups
    return gates, line


@pytest.mark.parametrize(
    ('optimizer', 'decay'),
    [
        (dict(type='Adam', lr=1e-3), 0),
        (dict(type=torch.optim.Adam), 0),
        (dict(type='SGD', lr=0.1, momentum=0.9), 0),
        # its own decay is kept for the rest, and taken from the gates
        (dict(type='AdamW', lr=1e-3), 0.01),
        (dict(type='AdamW'), 0.01),
        (dict(type='mmpretrain.Lamb', lr=1e-3), 0.01),
        (dict(type='Adam', lr=1e-3, weight_decay=0.5), 0.5),
    ],
)
def test_numbers_that_are_left_out(optimizer, decay):
    gates, line = groups(**optimizer)
    assert gates['weight_decay'] == 0 and line['weight_decay'] == decay
    assert gates['lr'] == line['lr'] == optimizer.get('lr', 1e-3)


def test_what_cannot_be_filled_in_is_left():
    for wrapper in (None, dict(), dict(optimizer=dict(type='Nothing'))):
        cfg = Config(dict(optim_wrapper=wrapper))
        write_optimizer_defaults(cfg)
        assert cfg.optim_wrapper == wrapper
    sentence = upstream_sentence(ValueError('base_wd should not be None'))
    assert 'has no weight_decay' in sentence
