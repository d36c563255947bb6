"""``compile=True`` of a config, applied to the backbone only."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from fgc_mm.engine.loss_progress_hook import unwrapped_model
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the backbone with its gates, and no other part of the step.

    If the config has ``compile=True`` (or a dict for ``torch.compile``),
    mmengine compiles the whole training step. It contains numbers that change
    in every step (the images' indices, the learning rate), so torch
    recompiles every step until it reaches its limit. The backbone is one
    graph, including gates and masks: it is compiled once for training and
    once for validation.
    """

    # after EMAHook, which copies the model
    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        """Compile the backbone instead of mmengine's whole step.

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
        model: Any = unwrapped_model(runner)
        backbone = getattr(model, 'backbone', model)
        if isinstance(backbone, GatedBackbone):  # its hooks run the gates
            backbone = backbone.backbone
        # in place, so parameters keep their names; copies are not compiled
        backbone.compile(**given)
        runner._maybe_compile = lambda target: None  # mmengine's own
        runner.logger.info(
            f'{type(backbone).__name__} is compiled in its first training '
            'step and its first validation step; each takes minutes.'
        )
