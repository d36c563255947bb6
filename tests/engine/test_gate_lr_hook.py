"""The gates' own learning rate, in a run."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from fgc_mm.engine import GateLRHook
from fgc_mm.errors import FGCError


class Run:
    """The parts of a Runner that the hook reads."""

    def __init__(self, model, paramwise):
        self.model = model
        optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
        self.optim_wrapper = build_optim_wrapper(
            model, dict(optimizer=optimizer, paramwise_cfg=paramwise)
        )


def rates(run):
    gates = {id(p) for p in run.model.backbone.gates.parameters()}
    found = {True: set(), False: set()}
    for group in run.optim_wrapper.optimizer.param_groups:
        for parameter in group['params']:
            found[id(parameter) in gates].add(group['lr'])
    return found


def test_gates_keep_theirs_while_the_others_fall(tiny):
    keys = {'backbone.gates': dict(decay_mult=0.0)}
    run = Run(tiny.build(), dict(custom_keys=keys))
    hook = GateLRHook(0.1)
    hook.before_train(run)
    schedule = torch.optim.lr_scheduler.StepLR(
        run.optim_wrapper.optimizer, 1, 0.1
    )
    for epoch in range(3):
        hook.before_train_iter(run, 0)
        found = rates(run)
        assert found[True] == {0.1}
        (rate,) = found[False]
        assert rate == pytest.approx(0.01 * 0.1**epoch)
        schedule.step()


def test_gates_need_groups_of_their_own(tiny):
    run = Run(tiny.build(), None)
    with pytest.raises(FGCError, match=r'gates and backbone in one .*group'):
        GateLRHook(0.1).before_train(run)
    with pytest.raises(FGCError, match=r'lr=0 of GateLRHook'):
        GateLRHook(0)
