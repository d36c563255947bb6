"""``compile=True``, where it pays."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from fgc_mm.engine.loss_progress_hook import bare_model
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the backbone with its gates, and nothing else of the step.

    Where the config has ``compile=True`` (or a dict for ``torch.compile``),
    mmengine compiles the whole training step. The images' indices and the
    learning rate are numbers in it that change in every step, so every step
    is compiled anew until torch gives up. The backbone is one graph, gates
    and masks included: it is compiled once for training and once for
    validation.
    """

    # after EMAHook, which copies the model
    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        """Stand in for mmengine's own compiling.

        Raises:
            FGCError: ``compile`` is neither a bool nor a dict.
        """
        options = runner.cfg.get('compile')
        if not options or not isinstance(runner._train_loop, BaseLoop):
            return
        if not isinstance(options, (bool, dict)):
            raise FGCError(
                f'compile={options!r} is neither True nor a dict of '
                "torch.compile's arguments; write compile=True or "
                "compile=dict(mode='max-autotune')."
            )
        given = options if isinstance(options, dict) else {}
        backbone = _backbone(bare_model(runner))
        # in place: parameters keep their names, and a copy is not compiled
        backbone.compile(**given)
        runner._maybe_compile = _leave
        runner.logger.info(
            f'{type(backbone).__name__} is compiled in its first training '
            'step and its first validation step; each takes minutes.'
        )


def _backbone(model: nn.Module) -> nn.Module:
    backbone: Any = getattr(model, 'backbone', model)
    gated = isinstance(backbone, GatedBackbone)
    # without the wrapper around it, which hands out records
    return backbone.backbone if gated else backbone


def _leave(target: str) -> None:
    """What the runner's own compiling is replaced by."""
