"""The config of a compact model."""

from mmengine.config import Config

from fgc_mm.deploy.compaction.small_state import any_gate, small_settings
from fgc_mm.models import ChannelMap

HERE = '{{ fileDirname }}'  # mmengine: the folder of the config itself
# hooks that need a gate
GATE_HOOKS = ('LossProgressHook', 'FGCMemoryBankHook')


def small_config(cfg: Config, channel_map: ChannelMap) -> Config:
    """A config beside ``channels.json`` and ``model.pth``.

    Args:
        cfg: Of the whole gated model.
        channel_map: What remains of it.

    Returns:
        A config without ``_base_`` that ``tools/test.py`` tests and
        ``tools/train.py`` trains further from ``model.pth``; without any
        gate, that of a plain ``ImageClassifier``.
    """
    content = cfg.to_dict()
    gated = any_gate(channel_map)
    model = content['model']
    model['backbone'] = small_settings(
        model['backbone'], f'{HERE}/channels.json', gated
    )
    content.update(load_from=f'{HERE}/model.pth', resume=False)
    content.pop('work_dir', None)
    if not gated:
        _remove_gate_settings(content)
    return Config(content)


def _remove_gate_settings(content: dict) -> None:
    content['model'].update(type='ImageClassifier')
    content['model'].pop('gate_losses', None)
    content['custom_hooks'] = [
        hook
        for hook in content.get('custom_hooks') or ()
        if not str(hook['type']).endswith(GATE_HOOKS)
    ]
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = content.get(name)
        if isinstance(metrics, (list, tuple)):
            content[name] = [
                metric
                for metric in metrics
                if not str(metric['type']).endswith('DynamicMACs')
            ]
