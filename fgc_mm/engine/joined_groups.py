"""Joins parameter groups with equal options, which saves kernel launches.

``paramwise_cfg`` makes one group per parameter, 105 in a gated ResNet-20. An
optimizer updates a group with a few kernel launches, whatever its number of
parameters, so with two groups the same training takes a fiftieth of the
launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS

Group = dict[str, Any]
# lists in the state of mmengine's schedulers with one number per group
PER_GROUP = ('base_values', '_last_value', 'min_values')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class JoinedGroupsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor; parameters with equal options share a group.

    If ``paramwise_cfg`` is given, parameters of gates and other parameters
    are never in one group, so ``GateLRHook`` can set the gates' rate. The
    parameters keep their order within a group. Checkpoints of runs with a
    group per parameter are resumed exactly, see :class:`JoinedGroupsHook`.

    Args:
        optim_wrapper_cfg, paramwise_cfg: As in mmengine's constructor.
    """

    _members: Any

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Upstream's, which recurses into children; then join the groups."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix == '':
            self._members = equal_groups(params, gate_parameters(module))
            self._sizes = [len(group['params']) for group in params]
            params[:] = join_groups(params, self._members)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper of a model."""
        self._members = None
        wrapper = super().__call__(model)
        if self._members is not None:
            wrapper.optimizer.joined = self._members, self._sizes
        return wrapper


@HOOKS.register_module()
class JoinedGroupsHook(Hook):
    """Lets a run with joined groups resume a run that had more groups.

    The optimizer's state in the checkpoint is regrouped, and so are the
    numbers per group of the schedulers, so the run is resumed exactly.

    Raises:
        FGCError: Groups that are now joined had different options.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Regroup the optimizer's state in the checkpoint."""
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        members, sizes = getattr(optimizer, 'joined', (None, None))
        saved = checkpoint.get('optimizer') or {}
        groups = saved.get('param_groups', ())
        if members is None or sizes != [len(g['params']) for g in groups]:
            return
        saved['param_groups'] = _rejoin(groups, members)
        # if there are several groups, mmengine appends one without
        # parameters, whose rate it logs as base_lr
        base = runner.optim_wrapper.base_param_settings is not None
        if not base:
            saved.pop('base_param_settings', None)
        for state in checkpoint.get('param_schedulers') or ():
            _regroup_scheduler(state, members, len(groups), base)


def equal_groups(groups: Sequence[Group], separate: set[int]) -> list:
    """Indices of the groups that can be joined, in the order of the first.

    Args:
        separate: ``id`` of the parameters whose groups are joined only with
            each other.
    """
    members: dict[Any, list[int]] = {}
    for number, group in enumerate(groups):
        inside = {id(p) in separate for p in group['params']}
        key = _options(group), tuple(sorted(inside))
        members.setdefault(repr(key), []).append(number)
    return list(members.values())


def join_groups(groups: Sequence[Group], members: Sequence[list[int]]) -> list:
    """One group for each list of indices, with the options of its first."""
    return [
        dict(
            groups[numbers[0]],
            params=[p for n in numbers for p in groups[n]['params']],
        )
        for numbers in members
    ]


def _rejoin(groups: Sequence[Group], members: Sequence[list[int]]) -> list:
    for numbers in members:
        first, *others = (_options(groups[number]) for number in numbers)
        differ = [a for o in others for a, b in zip(o, first) if a != b]
        if differ:
            name, value = differ[0]
            raise FGCError(
                f'the checkpoint has {name}={value!r} for a parameter that '
                'shares a group with parameters of another value in this '
                'run; resume with the paramwise_cfg of that run, or leave '
                'out constructor in optim_wrapper.'
            )
    return join_groups(groups, members)


def _regroup_scheduler(
    state: dict[str, Any],
    members: Sequence[list[int]],
    count: int,
    base: bool,
) -> None:
    for name in PER_GROUP:
        values = state.get(name)
        if isinstance(values, list) and len(values) >= count:
            joined = [values[numbers[0]] for numbers in members]
            state[name] = joined + values[-1:] * base


def _options(group: Group) -> list[tuple[str, Any]]:
    return sorted((k, v) for k, v in group.items() if k != 'params')


def gate_parameters(model: nn.Module) -> set[int]:
    """``id`` of every parameter of the gates; empty without gates."""
    gates = getattr(getattr(model, 'backbone', None), 'gates', None)
    inside = gates.parameters() if isinstance(gates, nn.Module) else ()
    return {id(parameter) for parameter in inside}
