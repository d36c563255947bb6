"""Checks that a training writes the checkpoint of its last epoch."""

from mmengine.config import Config

from fgc_mm.type_name import type_name

from ..errors import FGCError

# settings of the CheckpointHook, and the values that a comparison needs
NEEDED = {
    'by_epoch': True,
    'save_last': True,
    'out_dir': None,
    'filename_tmpl': None,
}


def check_last_checkpoint(cfg: Config, path: str) -> None:
    """Checks that ``epoch_N.pth`` of the last epoch N is in the work dir.

    Raises:
        FGCError: The training may end earlier, or writes another file.
    """
    hooks = cfg.get('default_hooks') or {}
    for hook in (*(cfg.get('custom_hooks') or ()), *hooks.values()):
        if type_name(hook) == 'EarlyStoppingHook':
            raise FGCError(
                f'{path} has an EarlyStoppingHook, but a comparison tests '
                'the last of a known number of epochs; remove the hook.'
            )
    saved = hooks.get('checkpoint') or {}
    for key, needed in NEEDED.items():
        value = saved.get(key, needed)
        if value != needed:
            raise FGCError(
                f'{path} sets {key}={value!r} of default_hooks.checkpoint, '
                'but a comparison needs epoch_N.pth of the last epoch in '
                f'the work dir; set it to {needed!r}.'
            )
