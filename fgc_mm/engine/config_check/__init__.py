"""Checks a config before the first step: data sets, model, evaluator."""

from fgc_mm.engine.config_check.hook import ConfigCheckHook

__all__ = ['ConfigCheckHook']
