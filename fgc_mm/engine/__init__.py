"""Adapters to MMEngine's runner."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.engine import checkpoint  # noqa: F401  (makes loading safe)
from fgc_mm.engine.bfloat16_wrapper import BFloat16OptimWrapper
from fgc_mm.engine.channels_last_hook import ChannelsLastHook
from fgc_mm.engine.checkpoint_hook import SafeCheckpointHook
from fgc_mm.engine.compile_hook import CompileHook
from fgc_mm.engine.config_check_hook import ConfigCheckHook
from fgc_mm.engine.exact_resume_hook import ExactResumeHook
from fgc_mm.engine.finite_loss_hook import FiniteLossHook
from fgc_mm.engine.gate_lr_hook import GateLRHook
from fgc_mm.engine.joined_groups import (
    JoinedGroupsConstructor,
    JoinedGroupsHook,
)
from fgc_mm.engine.logged_values_hook import LoggedValuesHook
from fgc_mm.engine.loss_progress_hook import LossProgressHook
from fgc_mm.engine.memory_bank_hook import FGCMemoryBankHook
from fgc_mm.engine.soft_filter_pruning_hook import SoftFilterPruningHook
from fgc_mm.engine.training_steps_hook import TrainingStepsHook

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'CompileHook',
    'ConfigCheckHook',
    'ExactResumeHook',
    'FGCMemoryBankHook',
    'FiniteLossHook',
    'GateLRHook',
    'JoinedGroupsConstructor',
    'JoinedGroupsHook',
    'LoggedValuesHook',
    'LossProgressHook',
    'SafeCheckpointHook',
    'SoftFilterPruningHook',
    'TrainingStepsHook',
]
