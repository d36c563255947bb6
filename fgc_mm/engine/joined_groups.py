"""Parameter groups of equal options, joined: each costs launches of its own.

``paramwise_cfg`` makes one group per parameter, 105 in a gated ResNet-20. An
optimizer updates all parameters of a group by a handful of launches, however
many they are, so two groups train as 105 do, in a fiftieth of the launches.
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
# lists of mmengine's schedulers that have a number per group
PER_GROUP = ('base_values', '_last_value', 'min_values')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class JoinedGroupsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor; parameters of equal options share a group.

    Parameters of gates and others are never in one group where
    ``paramwise_cfg`` is given, so ``GateLRHook`` can set the gates' rate. The
    parameters keep their order within a group. Checkpoints of runs with a
    group per parameter are resumed exactly, see :class:`JoinedGroupsHook`.

    Args:
        optim_wrapper_cfg: As in ``DefaultOptimWrapperConstructor``.
        paramwise_cfg: As there.
    """

    _members: Any

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """As upstream's, which calls it for each child; then the join."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix == '':
            self._members = members_of_equals(params, _gates(module))
            self._sizes = [len(group['params']) for group in params]
            params[:] = join(params, self._members)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper of a model."""
        self._members = None
        wrapper = super().__call__(model)
        if self._members is not None:
            wrapper.optimizer.joined = self._members, self._sizes
        return wrapper


@HOOKS.register_module()
class JoinedGroupsHook(Hook):
    """Lets a run with joined groups resume one that had more of them.

    The optimizer's state in the checkpoint is regrouped, and the schedulers'
    numbers per group with it, so the resumed run goes on exactly.

    Raises:
        FGCError: Groups that are one now had different options.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Regroup what the checkpoint holds of the optimizer."""
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        members, sizes = getattr(optimizer, 'joined', (None, None))
        saved = checkpoint.get('optimizer') or {}
        groups = saved.get('param_groups', ())
        if members is None or sizes != [len(g['params']) for g in groups]:
            return
        saved['param_groups'] = _rejoin(groups, members)
        # several groups are followed by one without parameters, whose rate
        # mmengine logs as base_lr
        base = runner.optim_wrapper.base_param_settings is not None
        if not base:
            saved.pop('base_param_settings', None)
        for state in checkpoint.get('param_schedulers') or ():
            _regroup_scheduler(state, members, len(groups), base)


def members_of_equals(groups: Sequence[Group], apart: set[int]) -> list:
    """Numbers of the groups that can be one, in the order of the first.

    Args:
        groups: Parameter groups.
        apart: ``id`` of parameters that are joined among themselves only.
    """
    members: dict[Any, list[int]] = {}
    for number, group in enumerate(groups):
        inside = {id(p) in apart for p in group['params']}
        key = _options(group), tuple(sorted(inside))
        members.setdefault(repr(key), []).append(number)
    return list(members.values())


def join(groups: Sequence[Group], members: Sequence[list[int]]) -> list:
    """One group of each list of groups, with the options of its first."""
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
                'now shares a group with others of another value; resume '
                'with the paramwise_cfg of that run, or leave out '
                'constructor in optim_wrapper.'
            )
    return join(groups, members)


def _regroup_scheduler(
    state: dict[str, Any],
    members: Sequence[list[int]],
    count: int,
    base: bool,
) -> None:
    for name in PER_GROUP:
        values = state.get(name)
        if isinstance(values, list) and len(values) >= count:
            kept = [values[numbers[0]] for numbers in members]
            state[name] = kept + values[-1:] * base


def _options(group: Group) -> list[tuple[str, Any]]:
    return sorted((k, v) for k, v in group.items() if k != 'params')


def _gates(model: nn.Module) -> set[int]:
    gates = getattr(getattr(model, 'backbone', None), 'gates', None)
    inside = gates.parameters() if isinstance(gates, nn.Module) else ()
    return {id(parameter) for parameter in inside}
