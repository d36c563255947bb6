"""Hooks and config handling for MMEngine's runner, for training with gates."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.engine.bfloat16_wrapper import BFloat16OptimWrapper
from fgc_mm.engine.channels_last_hook import ChannelsLastHook
from fgc_mm.engine.compile_hook import CompileHook
from fgc_mm.engine.config_check import ConfigCheckHook
from fgc_mm.engine.gate_lr_hook import GateLRHook
from fgc_mm.engine.gate_statistics_hook import GateStatisticsHook
from fgc_mm.engine.joined_groups import (
    JoinedGroupsConstructor,
    JoinedGroupsHook,
)
from fgc_mm.engine.logged_values_hook import LoggedValuesHook
from fgc_mm.engine.loss_progress_hook import LossProgressHook
from fgc_mm.engine.memory_bank_hook import FGCMemoryBankHook
from fgc_mm.engine.soft_filter_pruning_hook import SoftFilterPruningHook
from fgc_mm.reliability.checkpoint_reader import call_after_reading
from fgc_mm.sites.site_cache import cache_checkpoint_sites

call_after_reading(cache_checkpoint_sites)

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'CompileHook',
    'ConfigCheckHook',
    'FGCMemoryBankHook',
    'GateLRHook',
    'GateStatisticsHook',
    'JoinedGroupsConstructor',
    'JoinedGroupsHook',
    'LoggedValuesHook',
    'LossProgressHook',
    'SoftFilterPruningHook',
]
