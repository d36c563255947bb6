"""Adapters to MMEngine's runner."""

from fgc_mm.engine.loss_progress_hook import LossProgressHook
from fgc_mm.engine.memory_bank_hook import FGCMemoryBankHook

__all__ = ['FGCMemoryBankHook', 'LossProgressHook']
