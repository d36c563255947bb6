"""Sentences for errors of torch and mmengine that a config causes."""

from __future__ import annotations

import os


def upstream_sentence(error: BaseException) -> str | None:
    """What the user can do about the error, if it is a known one.

    Args:
        error: Whatever has ended the run.

    Returns:
        One sentence, or None.
    """
    for kind, phrase, sentence in KNOWN:
        if isinstance(error, kind) and phrase in str(error):
            return sentence.format(
                error=error,
                start=str(error.args[0]).partition('. ')[0],
                got=str(error.args[0]).partition('but got ')[2].split('\n')[0],
                port=os.environ.get('MASTER_PORT', ''),
            )
    return None


# class of the error, a part of its text, the sentence: {error} is its text,
# {start} the first sentence of it, {got} what follows "but got"
KNOWN: tuple[tuple[type[BaseException], str, str], ...] = (
    (
        KeyError,
        ' registry. ',
        '{start}: check its spelling and custom_imports.',
    ),
    (
        TypeError,
        'unexpected keyword',
        '{error}; check its spelling in the config.',
    ),
    (
        ValueError,
        'different number of parameter groups',
        'the checkpoint has its optimizer in other parameter groups than the '
        'config makes; resume with the paramwise_cfg and the constructor of '
        'optim_wrapper that the run began with (only '
        'fgc_mm.JoinedGroupsConstructor takes over a group per parameter), '
        'or take its weights only, with --cfg-options load_from=...',
    ),
    (
        ValueError,
        'loaded state dict',
        'the checkpoint was written by another network ({error}), so its '
        'optimizer cannot be resumed; take its weights only, with '
        '--cfg-options load_from=...',
    ),
    (
        ValueError,
        'base_wd should not be',
        'optim_wrapper.optimizer has no weight_decay, which decay_mult in '
        'paramwise_cfg multiplies; set it, to 0.0 for none.',
    ),
    (
        KeyError,
        'contain the key "type"',
        'a part of the config has no type ({got}): each that is built names '
        'its class; check the spelling of its name.',
    ),
    (
        RuntimeError,
        'EADDRINUSE',
        'port {port} of this machine is in use: the processes meet at a port '
        'that is free; set another MASTER_PORT.',
    ),
    (
        ValueError,
        'more than 1 value per',
        '{error}: a norm needs the spread of a batch; use a batch_size of at '
        'least 2 that leaves no last batch of 1 image.',
    ),
    (
        ValueError,
        'one array to conc',
        'a data set of the config has no image; check its data_root, '
        'data_prefix and indices.',
    ),
    (
        ValueError,
        'Cannot infer the rule',
        '{error} It is a save_best or monitor: set rule="greater" or '
        'rule="less" beside it, or name another metric.',
    ),
)
