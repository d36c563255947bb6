"""Hooks for training that survives crashes and preemption."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.reliability.checkpoint_hook import SafeCheckpointHook
from fgc_mm.reliability.checkpoint_loaders import register_safe_loader
from fgc_mm.reliability.exact_resume_hook import ExactResumeHook
from fgc_mm.reliability.finite_loss_hook import FiniteLossHook
from fgc_mm.reliability.sync_norms_hook import SyncNormsHook
from fgc_mm.reliability.training_steps_hook import TrainingStepsHook

register_safe_loader()

__all__ = [
    'ExactResumeHook',
    'FiniteLossHook',
    'SafeCheckpointHook',
    'SyncNormsHook',
    'TrainingStepsHook',
]
