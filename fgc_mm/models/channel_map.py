"""Which channels of a network remain: a file, and the network it makes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.layout import DENSE, layer_widths

FORMAT = 'fgc_mm channel map'
# what per-channel modules call their number of channels
WIDTH_NAMES = ('num_features', 'num_channels', 'num_parameters', 'dim')


@dataclass(frozen=True)
class Kept:
    """Which channels of one layer remain.

    Attributes:
        widths: Of the whole layer: (outputs, inputs, groups) of a conv or
            linear layer, (channels,) of a per-channel module (a norm, a
            ``PReLU``, a layer scale).
        outputs: Output channels that remain, in the whole layer's numbers.
        inputs: Input channels that remain; those of a per-channel module
            are its outputs.
    """

    widths: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...] = ()

    @property
    def dense(self) -> bool:
        """Whether it is a conv or linear layer."""
        return len(self.widths) == 3

    def groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """Per group that remains: outputs, and inputs counted within it."""
        out, reads, groups = self.widths
        wide, deep = out // groups, reads // groups
        outputs: list[list[int]] = [[] for _ in range(groups)]
        inputs: list[list[int]] = [[] for _ in range(groups)]
        for channel in self.outputs:
            outputs[channel // wide].append(channel)
        for channel in self.inputs:
            inputs[channel // deep].append(channel % deep)
        used = [g for g in range(groups) if outputs[g] or inputs[g]]
        return [outputs[g] for g in used], [inputs[g] for g in used]

    def even(self) -> bool:
        """Whether all groups that remain have the same widths, above 0."""
        return all(
            len({len(group) for group in side}) == 1 and side[0]
            for side in self.groups()
        )

    def take(self, value: Tensor) -> Tensor:
        """What remains of one of the layer's parameters or buffers."""
        if self.dense and value.dim() > 1:
            outputs, inputs = self.groups()
            parts = [value[out][:, i] for out, i in zip(outputs, inputs)]
            return torch.cat(parts)
        if self.dense and value.dim() == 1:
            return value[list(self.outputs)]
        places = [d for d, n in enumerate(value.shape) if n == self.widths[0]]
        if not places:
            return value
        index = torch.tensor(self.outputs, device=value.device)
        return value.index_select(places[0], index)


@dataclass(frozen=True)
class SiteChannels:
    """What is gated at one site, in the whole network's channel numbers.

    Attributes:
        kept: Channels that remain.
        gated: Those of them that the gate opens and closes.
        closed: Those of them that are always closed but cannot be removed;
            all others are always open.
    """

    kept: tuple[int, ...]
    gated: tuple[int, ...]
    closed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChannelMap:
    """Which channels of every layer of a network remain.

    It shrinks a network that was built whole (:meth:`shrink`), and a state
    dict of the whole network (:meth:`shrink_state`); a model is never
    pickled. Layers that it does not name stay whole. To make one::

        channel_map = ChannelMap.of(
            backbone,                       # whole
            outputs={'layer1.0.conv1': [0, 3, 4], 'layer1.0.bn1': [0, 3, 4]},
            inputs={'layer1.0.conv2': [0, 3, 4]},
        )
        channel_map.save('channels.json')

    and to use it in a config::

        backbone=dict(
            type='fgc_mm.ChannelMapBackbone',
            backbone=dict(type='ResNet', depth=18),
            channel_map='channels.json',
        )

    Attributes:
        layers: By path in the network.
        sites: What is gated, by site; empty for a network without gates.
    """

    layers: Mapping[str, Kept]
    sites: Mapping[str, SiteChannels] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        outputs: Mapping[str, Sequence[int]],
        inputs: Mapping[str, Sequence[int]],
        sites: Mapping[str, SiteChannels] | None = None,
    ) -> 'ChannelMap':
        """A map from the channels that remain.

        Args:
            network: The whole network.
            outputs: Output channels that remain, by path; for per-channel
                modules (norms, depthwise convs) the channels.
            inputs: Input channels that remain, by path; of those that both
                leave out, all.
            sites: What is gated.

        Raises:
            FGCError: A path, or a channel, that the network does not have.
        """
        layers = {}
        for path in dict.fromkeys([*outputs, *inputs]):
            widths = _widths(network, path)
            reads = widths[1] if len(widths) == 3 else 0
            if reads and widths[2] == reads == widths[0]:  # depthwise
                whole = outputs.get(path, inputs.get(path))
                kept = Kept(widths, tuple(whole), tuple(whole))
            else:
                kept = Kept(
                    widths,
                    tuple(outputs.get(path, range(widths[0]))),
                    tuple(inputs.get(path, range(reads))),
                )
            _check(path, kept)
            layers[path] = kept
        return cls(layers, sites or {})

    def shrink(self, network: nn.Module) -> nn.Module:
        """Take the channels that do not remain out of a network, in place.

        Afterwards a checkpoint of the whole network still loads: it loses
        the same channels on the way.

        Raises:
            FGCError: The map is of another network.
        """
        for path, kept in self.layers.items():
            widths = _widths(network, path)
            if widths != kept.widths:
                raise FGCError(
                    f'{path} is {_spelt(kept.widths)} in the channel map and '
                    f'{_spelt(widths)} in {type(network).__name__}: a map '
                    'fits the network it was made for only; give the config '
                    'of that one.'
                )
            _shrink_layer(network.get_submodule(path), kept)
        network._register_load_state_dict_pre_hook(self._adopt_whole)
        return network

    def shrink_state(
        self, state: dict[str, Any], prefix: str = ''
    ) -> dict[str, Any]:
        """A state dict of the whole network without what does not remain."""
        shrunk = dict(state)
        for path, kept in self.layers.items():
            start = f'{prefix}{path}.'
            for key in [k for k in state if k.startswith(start)]:
                if '.' not in key[len(start) :]:
                    shrunk[key] = kept.take(state[key])
        return shrunk

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(self.text())

    def text(self) -> str:
        """The JSON, a line per layer and site."""
        layers = {
            name: dict(
                widths=kept.widths, outputs=kept.outputs, inputs=kept.inputs
            )
            for name, kept in self.layers.items()
        }
        sites = {name: vars(site) for name, site in self.sites.items()}
        return (
            f'{{"format": "{FORMAT}", "version": 1,\n"layers": '
            f'{_lines(layers)},\n"sites": {_lines(sites)}}}\n'
        )

    @classmethod
    def load(cls, path: str | Path) -> 'ChannelMap':
        """Read what :meth:`save` wrote.

        Raises:
            FGCError: The file is missing, or no channel map.
        """
        file = Path(path)
        if not file.is_file():
            raise FGCError(
                f'{path} is not a file: channel_map names the JSON that '
                'tools/export/compact.py writes; check the path.'
            )
        try:
            return cls._parsed(json.loads(file.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FGCError):
                raise
            raise FGCError(
                f'{path} is no channel map ({type(error).__name__}: {error}):'
                ' that is a JSON file which tools/export/compact.py writes; '
                'check the path.'
            ) from error

    @classmethod
    def _parsed(cls, content: dict) -> 'ChannelMap':
        if content['format'] != FORMAT:
            raise ValueError(f'format {content["format"]!r}')
        layers = {
            name: Kept(**{key: tuple(v) for key, v in entry.items()})
            for name, entry in content['layers'].items()
        }
        for name, kept in layers.items():
            _check(name, kept)
        sites = {
            name: SiteChannels(**{k: tuple(v) for k, v in entry.items()})
            for name, entry in content['sites'].items()
        }
        return cls(layers, sites)

    def _adopt_whole(
        self, state: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Shrink what a checkpoint of the whole network says of a layer."""
        for path, kept in self.layers.items():
            weight = state.get(f'{prefix}{path}.weight')
            if weight is not None and _whole(kept, weight):
                start = f'{prefix}{path}.'
                own = {k: v for k, v in state.items() if k.startswith(start)}
                shrunk = ChannelMap({path: kept}).shrink_state(own, prefix)
                state.update(shrunk)


def _whole(kept: Kept, weight: Tensor) -> bool:
    if not kept.dense:
        return kept.widths[0] in weight.shape
    out, reads, groups = kept.widths
    return tuple(weight.shape[:2]) == (out, reads // groups)


def _widths(network: nn.Module, path: str) -> tuple[int, ...]:
    """Outputs, inputs and groups, or the channels of another module."""
    try:
        layer = network.get_submodule(path)
    except AttributeError:
        raise FGCError(
            f'the channel map names {path}, which '
            f'{type(network).__name__} does not have: a map fits the network '
            'it was made for only; give the config of that one.'
        ) from None
    if isinstance(layer, DENSE):
        reads, out, groups = layer_widths(layer)
        return out, reads, groups
    sizes = [max(p.shape) for p in _own(layer).values() if p.dim()]
    if not sizes:
        raise FGCError(
            f'{path} ({type(layer).__name__}) has no channels of its own, so '
            'no channel map can shrink it; take it out of the map.'
        )
    return (max(sizes),)


def _own(layer: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers, by name."""
    return {
        **dict(layer.named_parameters(recurse=False)),
        **dict(layer.named_buffers(recurse=False)),
    }


def _check(path: str, kept: Kept) -> None:
    """Refuse channels that are not there, and groups of several widths."""
    limits = kept.widths if kept.dense else (kept.widths[0], 0)
    for channels, limit in zip((kept.outputs, kept.inputs), limits):
        rising = sorted(set(channels)) == list(channels)
        if not rising or (channels and not 0 <= channels[-1] < limit):
            raise FGCError(
                f'the channels of {path} in the channel map are not rising '
                f'numbers below {limit}; make the map anew.'
            )
    if not kept.outputs or (kept.dense and not kept.even()):
        raise FGCError(
            f'the channel map leaves {path} without a channel, or with '
            'groups of several widths; keep as many in each group, and at '
            'least one.'
        )


def _shrink_layer(layer: nn.Module, kept: Kept) -> None:
    for name, value in _own(layer).items():
        shrunk = kept.take(value.detach()).clone()
        if isinstance(value, nn.Parameter):
            shrunk = nn.Parameter(shrunk, value.requires_grad)
        setattr(layer, name, shrunk)
    count = len(kept.outputs)
    if not kept.dense:
        for name in WIDTH_NAMES:
            if getattr(layer, name, None) == kept.widths[0]:
                setattr(layer, name, count)
        if getattr(layer, 'normalized_shape', None) == kept.widths:
            layer.normalized_shape = (count,)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = count, len(kept.inputs)
    else:
        layer.out_channels, layer.in_channels = count, len(kept.inputs)
        layer.groups = len(kept.groups()[0])


def _spelt(widths: tuple[int, ...]) -> str:
    if len(widths) == 1:
        return f'{widths[0]} channels wide'
    return f'{widths[1]} -> {widths[0]} channels in {widths[2]} groups'


def _lines(entries: Mapping[str, Any]) -> str:
    lines = (f' {json.dumps(k)}: {json.dumps(v)}' for k, v in entries.items())
    return '{\n' + ',\n'.join(lines) + '}' if entries else '{}'
