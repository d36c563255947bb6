"""Few parameter groups, and runs that had many."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper

from fgc_mm.cli.upstream_errors import upstream_sentence
from fgc_mm.engine import JoinedGroupsHook
from fgc_mm.errors import FGCError

KEYS = dict(custom_keys={'backbone.gates': dict(decay_mult=0.0)})
MANY = DefaultOptimWrapperConstructor.__name__


def build(model, constructor='fgc_mm.JoinedGroupsConstructor', keys=KEYS):
    optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    cfg = dict(constructor=constructor, optimizer=optimizer)
    return build_optim_wrapper(model, dict(cfg, paramwise_cfg=keys))


def count(wrapper):
    return len(wrapper.optimizer.param_groups)


def test_equal_options_share_a_group_and_gates_have_their_own(tiny):
    model = tiny.build()
    network, gates = build(model).optimizer.param_groups
    order = {id(p): n for n, p in enumerate(model.parameters())}
    own = {id(p) for p in model.backbone.gates.parameters()}
    assert {id(p) for p in gates['params']} == own
    assert gates['weight_decay'] == 0 and network['weight_decay'] == 1e-4
    for group in (network, gates):
        places = [order[id(p)] for p in group['params']]
        assert places == sorted(places)
    assert len(own) + len(network['params']) == len(order)


def test_gates_named_by_a_key_have_a_group_of_their_own(tiny):
    model = tiny.build()
    keys = dict(custom_keys={'backbone.gates': dict(decay_mult=1.0)})
    assert count(build(model, keys=keys)) == 2
    assert count(build(model, keys=None)) == 1
    keys = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
    assert count(build(model, keys=keys)) == 4


def test_a_step_is_that_of_many_groups(tiny):
    torch.manual_seed(0)
    one = tiny.build()
    other = copy.deepcopy(one)
    few, many = build(one), build(other, MANY)
    assert count(many) > 10
    for _ in range(2):
        for a, b in zip(one.parameters(), other.parameters()):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        few.step(), many.step()
    for a, b in zip(one.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_a_run_with_a_group_per_parameter_is_resumed_exactly(digits, tmp_path):
    key = 'optim_wrapper.constructor'
    old = {key: MANY, 'param_scheduler.milestones': [1]}
    whole = digits.start(digits.tiny_config(tmp_path / 'a', 2, **old))
    whole.train()
    groups = count(whole.optim_wrapper)
    again = digits.tiny_config(tmp_path / 'b', 2, **dict(old, **{
        key: 'fgc_mm.JoinedGroupsConstructor'
    }))  # fmt: skip
    again.resume, again.load_from = True, str(tmp_path / 'a/epoch_1.pth')
    runner = digits.start(again)
    runner.train()
    assert groups > 100 and count(runner.optim_wrapper) == 2
    assert digits.equal(digits.weights(whole), digits.weights(runner))
    (scheduler,) = runner.param_schedulers
    assert len(scheduler.base_values) == len(scheduler._last_value) == 3
    rates = [
        {group['lr'] for group in run.optim_wrapper.param_groups}
        for run in (whole, runner)
    ]
    assert rates[0] == rates[1]


def test_groups_of_other_options_cannot_be_joined(tiny):
    model = tiny.build()
    few, many = build(model), build(model, MANY)
    saved = many.optimizer.state_dict()
    saved['param_groups'][1]['lr'] = 7.0
    runner = SimpleNamespace(optim_wrapper=few)
    with pytest.raises(FGCError, match=r'lr=7.0 for a parameter that sha'):
        JoinedGroupsHook().after_load_checkpoint(runner, dict(optimizer=saved))


def test_a_checkpoint_of_joined_groups_is_unchanged(tiny):
    few = build(tiny.build())
    saved = few.optimizer.state_dict()
    checkpoint = dict(optimizer=copy.deepcopy(saved))
    hook, runner = JoinedGroupsHook(), SimpleNamespace(optim_wrapper=few)
    hook.after_load_checkpoint(runner, checkpoint)
    assert checkpoint['optimizer'] == saved
    hook.after_load_checkpoint(runner, dict(state_dict={}))
    hook.after_load_checkpoint(SimpleNamespace(optim_wrapper=None), {})


def test_joined_groups_are_not_taken_apart(tiny):
    """That the network is another one would be untrue."""
    few, many = build(tiny.build()), build(tiny.build(), MANY)
    with pytest.raises(ValueError, match='parameter groups') as caught:
        many.load_state_dict(few.state_dict())
    sentence = upstream_sentence(caught.value)
    assert 'JoinedGroupsConstructor' in sentence
    assert 'another network' not in sentence
