"""Adapters to MMEngine's runner."""

from fgc_mm.engine import checkpoint  # noqa: F401  (makes loading safe)
from fgc_mm.engine.loss_progress_hook import LossProgressHook
from fgc_mm.engine.memory_bank_hook import FGCMemoryBankHook

__all__ = ['FGCMemoryBankHook', 'LossProgressHook']
