"""A plain backbone shrunk by a channel map."""

from typing import Any

from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from fgc_mm.models.channel_map import ChannelMap
from fgc_mm.registry import MODELS


@MODELS.register_module(name='ChannelMapBackbone')
def channel_map_backbone(
    backbone: dict | nn.Module, channel_map: str | ChannelMap
) -> nn.Module:
    """Build a whole backbone, and shrink it to a channel map.

    In a config ``type='fgc_mm.ChannelMapBackbone'``. Returns the backbone
    itself with fewer channels, so it has its own class and parameter names.
    Checkpoints of the narrow network and of the whole network can be loaded;
    channels are removed from the latter (with ``load_from``, ``init_cfg`` and
    ``load_state_dict``).

    Args:
        backbone: Config of the whole backbone, or the module, which is
            changed.
        channel_map: The JSON file (:meth:`ChannelMap.text`), or the map.

    Raises:
        FGCError: The file is not a channel map, or is for another network.
    """
    built = isinstance(backbone, nn.Module)
    network: Any = backbone if built else MMPRETRAIN_MODELS.build(backbone)
    return ChannelMap.load(channel_map).shrink(network)
