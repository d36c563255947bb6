"""Messages for errors of torch and mmengine that a config causes."""

from __future__ import annotations

import os


def upstream_sentence(error: BaseException) -> str | None:
    """The message for a known error, with what the user can do.

    Args:
        error: The exception that ended the run.

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
        'the optimizer state of the checkpoint has other parameter groups '
        'than the config; resume with the paramwise_cfg and the constructor '
        'of optim_wrapper of the original run (only '
        'fgc_mm.JoinedGroupsConstructor can resume a run with a group per '
        'parameter), or load only the weights, with --cfg-options '
        'load_from=...',
    ),
    (
        ValueError,
        'loaded state dict',
        'the checkpoint was written by another network ({error}), so its '
        'optimizer cannot be resumed; load only the weights, with '
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
        'a part of the config has no type ({got}), but a part that is built '
        'must name its class; check the spelling of its key.',
    ),
    (
        RuntimeError,
        'EADDRINUSE',
        'port {port} of this machine is in use, but the processes need a '
        'free port to connect; set another MASTER_PORT.',
    ),
    (
        ValueError,
        'more than 1 value per',
        '{error}: a norm needs the variance of a batch; use a batch_size of '
        'at least 2 that leaves no last batch of 1 image.',
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
        '{error} The key is that of save_best or monitor: set '
        'rule="greater" or rule="less" next to it, or another metric.',
    ),
)
