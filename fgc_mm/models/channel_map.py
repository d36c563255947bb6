"""Channel maps: which channels of a network remain after pruning."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.models.layer_slice import (
    LayerSlice,
    check_layer_slice,
    describe_widths,
    map_widths,
    shrink_layer,
)

FORMAT = 'fgc_mm channel map'


@dataclass(frozen=True)
class SiteChannels:
    """Remaining channels of one site, as indices in the whole network.

    Attributes:
        kept: Channels that remain.
        gated: Of these, the channels that the gate opens and closes.
        closed: Of these, the channels that are always closed but cannot be
            removed; all others are always open.
    """

    kept: tuple[int, ...]
    gated: tuple[int, ...]
    closed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChannelMap:
    """Which channels of every layer of a network remain.

    It shrinks a network that was built with all channels (:meth:`shrink`),
    and a state dict of the whole network (:meth:`shrink_state`); models are
    never pickled. Layers that are not in the map keep all channels. To make
    one::

        channel_map = ChannelMap.of(
            backbone,                       # whole
            outputs={'layer1.0.conv1': [0, 3, 4], 'layer1.0.bn1': [0, 3, 4]},
            inputs={'layer1.0.conv2': [0, 3, 4]},
        )
        Path('channels.json').write_text(channel_map.text())

    To use it in a config::

        backbone=dict(
            type='fgc_mm.ChannelMapBackbone',
            backbone=dict(type='ResNet', depth=18),
            channel_map='channels.json',
        )

    Attributes:
        layers: Remaining channels of layers, by path in the network.
        sites: Remaining channels of sites, by name; may be empty.
    """

    layers: Mapping[str, LayerSlice]
    sites: Mapping[str, SiteChannels] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        outputs: Mapping[str, Sequence[int]],
        inputs: Mapping[str, Sequence[int]],
        sites: Mapping[str, SiteChannels] | None = None,
    ) -> 'ChannelMap':
        """A map from the remaining channels.

        Args:
            network: The whole network.
            outputs: Remaining output channels, by path; for per-channel
                modules (norms, depthwise convs) their channels.
            inputs: Remaining input channels, by path. A layer in neither of
                them stays whole.
            sites: What is gated.

        Raises:
            FGCError: The network does not have a path or a channel.
        """
        layers = {}
        for path in dict.fromkeys([*outputs, *inputs]):
            widths = map_widths(network, path)
            reads = widths[1] if len(widths) == 3 else 0
            if reads and widths[2] == reads == widths[0]:  # depthwise
                whole = tuple(
                    outputs[path] if path in outputs else inputs[path]
                )
                kept = LayerSlice(widths, whole, whole)
            else:
                kept = LayerSlice(
                    widths,
                    tuple(outputs.get(path, range(widths[0]))),
                    tuple(inputs.get(path, range(reads))),
                )
            check_layer_slice(path, kept)
            layers[path] = kept
        return cls(layers, sites or {})

    def shrink(self, network: nn.Module) -> nn.Module:
        """Remove all other channels from a network, in place.

        Checkpoints of the whole network can still be loaded: the same
        channels are removed from them.

        Raises:
            FGCError: The map was made for another network.
        """
        for path, kept in self.layers.items():
            widths = map_widths(network, path)
            if widths != kept.widths:
                raise FGCError(
                    f'{path} is {describe_widths(kept.widths)} in the channel '
                    f'map and {describe_widths(widths)} in '
                    f'{type(network).__name__}, but a map only fits the '
                    'network that it was made for; give the config of that '
                    'one.'
                )
            shrink_layer(network.get_submodule(path), kept)
        network._register_load_state_dict_pre_hook(self._shrink_whole_layers)
        applied = (*ChannelMap.applied_to(network), self)
        vars(network)['applied_channel_maps'] = applied
        return network

    @staticmethod
    def applied_to(network: nn.Module | None) -> tuple['ChannelMap', ...]:
        """The maps that have shrunk a network, in order."""
        return getattr(network, 'applied_channel_maps', ())

    def shrink_state(
        self, state: dict[str, Any], prefix: str = ''
    ) -> dict[str, Any]:
        """Remove channels from a state dict of the whole network."""
        shrunk = dict(state)
        for path, kept in self.layers.items():
            for key, value in _own_tensors(state, f'{prefix}{path}.').items():
                shrunk[key] = kept.slice_tensor(value)
        return shrunk

    def text(self) -> str:
        """The map as JSON, with a line per layer and site."""
        return (
            f'{{"format": "{FORMAT}", "version": 1,\n"layers": '
            f'{_lines(self.layers)},\n"sites": {_lines(self.sites)}}}\n'
        )

    @classmethod
    def load(cls, path: 'str | Path | ChannelMap') -> 'ChannelMap':
        """Read a file with the JSON of :meth:`text`; a map is returned.

        Raises:
            FGCError: The file is missing, or is not a channel map.
        """
        if isinstance(path, ChannelMap):
            return path
        file = Path(path)
        if not file.is_file():
            raise FGCError(
                f'{path} is not a file, but channel_map needs the JSON file '
                'that tools/export/compact.py writes; check the path.'
            )
        try:
            return cls._parse(json.loads(file.read_text('utf-8')))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FGCError):
                raise
            raise FGCError(
                f'{path} is not a channel map ({type(error).__name__}: '
                f'{error}), which is a JSON file written by '
                'tools/export/compact.py; check the path.'
            ) from error

    @classmethod
    def _parse(cls, content: dict) -> 'ChannelMap':
        if content['format'] != FORMAT:
            raise ValueError(f'format {content["format"]!r}')
        kinds: Any = dict(layers=LayerSlice, sites=SiteChannels)
        layers, sites = (
            {
                name: kind(**{k: tuple(v) for k, v in entry.items()})
                for name, entry in content[key].items()
            }
            for key, kind in kinds.items()
        )
        for name, kept in layers.items():
            check_layer_slice(name, kept)
        return cls(layers, sites)

    def _shrink_whole_layers(
        self, state: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Shrink the tensors of layers that a checkpoint has whole."""
        for path, kept in self.layers.items():
            own = _own_tensors(state, f'{prefix}{path}.')
            if any(map(kept.is_whole, own.values())):
                state.update(
                    {k: kept.slice_tensor(value) for k, value in own.items()}
                )


def _own_tensors(state: Mapping[str, Any], start: str) -> dict[str, Any]:
    """The tensors of a module itself, whose keys begin with this."""
    return {
        key: value
        for key, value in state.items()
        if key.startswith(start) and '.' not in key[len(start) :]
    }


def _lines(entries: Mapping[str, Any]) -> str:
    lines = (
        f' {json.dumps(name)}: {json.dumps(vars(entry))}'
        for name, entry in entries.items()
    )
    return '{\n' + ',\n'.join(lines) + '}' if entries else '{}'
