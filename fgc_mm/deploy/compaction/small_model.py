"""Config and state dict of a compact model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.gates import GroupedGate
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.models.compact_backbone import remaining_decisions
from fgc_mm.type_name import type_name

HERE = '{{ fileDirname }}'  # mmengine replaces it by the config's folder
# hooks that need a gate
GATE_HOOKS = ('LossProgressHook', 'FGCMemoryBankHook', 'GateStatisticsHook')


def config_text(cfg: Config) -> str:
    """The text of a config with paths in HERE, whose name may have quotes."""
    return re.sub(rf"'({HERE}[^']*)'", r"r'''\1'''", cfg.pretty_text)


def any_gate(channel_map: ChannelMap) -> bool:
    """Whether any channel is still gated or closed."""
    return any(s.gated or s.closed for s in channel_map.sites.values())


def small_settings(
    settings: Mapping[str, Any], channel_map: str | ChannelMap, gated: bool
) -> dict[str, Any]:
    """Config of the small backbone.

    Args:
        settings: Config of the gated backbone.
        channel_map: The map, or its file.
        gated: Whether any gate is left.
    """
    if not gated:
        return dict(
            type='fgc_mm.ChannelMapBackbone',
            backbone=settings['backbone'],
            channel_map=channel_map,
        )
    return dict(
        settings, type='fgc_mm.CompactBackbone', channel_map=channel_map
    )


def small_config(cfg: Config, channel_map: ChannelMap) -> Config:
    """The config of the small model, to be saved with its two other files.

    Args:
        cfg: Config of the whole gated model.
        channel_map: What remains of it.

    Returns:
        A config without ``_base_`` for ``tools/test.py`` and
        ``tools/train.py``, which reads ``channels.json`` and ``model.pth``
        from its own folder. Without any gate it is that of a plain
        ``ImageClassifier``. A distillation stays if the config names its
        teacher's weights.
    """
    content = cfg.to_dict()
    gated = any_gate(channel_map)
    model = content['model']
    model['backbone'] = small_settings(
        model['backbone'], f'{HERE}/channels.json', gated
    )
    _keep_teacher(model, content.get('load_from'))
    content.update(load_from=f'{HERE}/model.pth', resume=False)
    content.pop('work_dir', None)
    if not gated:
        _remove_gate_settings(content)
    return Config(content)


def _keep_teacher(model: dict, load_from: str | None) -> None:
    """Name the teacher's weights; they are not those of the small model."""
    distillation = model.pop('distillation', None)
    checkpoint = (distillation or {}).get('checkpoint') or load_from
    if distillation is not None and checkpoint:
        model['distillation'] = dict(distillation, checkpoint=checkpoint)


def _remove_gate_settings(content: dict) -> None:
    content['model'].update(type='ImageClassifier')
    for name in ('gate_losses', 'distillation'):
        content['model'].pop(name, None)
    content['custom_hooks'] = [
        hook
        for hook in content.get('custom_hooks') or ()
        if type_name(hook) not in GATE_HOOKS
    ]
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = content.get(name)
        if isinstance(metrics, dict) and 'type' in metrics:
            metrics = [metrics]
        if isinstance(metrics, (list, tuple)):
            content[name] = [
                metric
                for metric in metrics
                if type_name(metric) != 'DynamicMACs'
            ]


def shrunk_state(
    model: nn.Module, small: nn.Module, channel_map: ChannelMap, prefix: str
) -> dict[str, Tensor]:
    """The small model's state dict, from the masked model's.

    Args:
        model: The masked model, or its backbone.
        small: The small backbone.
        channel_map: What remains.
        prefix: Of the backbone's keys in the model's state dict.
    """
    plain, gates = f'{prefix}backbone.', f'{prefix}gates.'
    inner = plain if isinstance(small, GatedBackbone) else prefix
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith(plain):
            state[f'{inner}{key[len(plain) :]}'] = value
        elif not key.startswith(gates):
            state[key] = value
    state = channel_map.shrink_state(state, inner)
    if isinstance(small, GatedBackbone):
        state |= _gate_states(gated_backbone(model), small, channel_map, gates)
    return state


def _gate_states(
    backbone: GatedBackbone,
    small: GatedBackbone,
    channel_map: ChannelMap,
    prefix: str,
) -> dict[str, Tensor]:
    """Rows (outputs) and columns (inputs) of every gate that remain."""
    state = {}
    for site in small.sites:
        entry = channel_map.sites[site.name]
        if not entry.gated:
            continue
        kept = channel_map.layers.get(site.producer)
        cols = kept.inputs if kept else ()
        inner = 'gate.' if len(entry.gated) < site.channels else ''
        whole = backbone.gates[site.key]
        rows = _rows(whole, entry)
        wanted = small.gates[site.key].state_dict()
        for key, value in whole.state_dict().items():
            shape = wanted[f'{inner}{key}'].shape
            remaining = _select_remaining(value, shape, rows, cols)
            state[f'{prefix}{site.key}.{inner}{key}'] = remaining
    return state


def _rows(gate: nn.Module, entry: SiteChannels) -> list[int]:
    """Indices of the outputs of a whole gate that the small one has."""
    if not isinstance(gate, GroupedGate):
        return list(entry.gated)
    group = gate.sizes[0]
    gated = set(entry.gated)
    return [
        channels[0] // group
        for channels in remaining_decisions(entry, group)
        if channels[0] in gated
    ]


def _select_remaining(
    value: Tensor, shape: torch.Size, rows: Sequence[int], cols: Sequence[int]
) -> Tensor:
    """A gate's weight without the rows and columns that were removed.

    The first dimension follows the gate's outputs, any other its inputs.
    """
    for dim, size in enumerate(shape):
        if value.shape[dim] != size:
            index = torch.tensor(cols if dim else rows, device=value.device)
            value = value.index_select(dim, index)
    return value
