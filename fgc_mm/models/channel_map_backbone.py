"""A plain backbone whose widths follow a channel map."""

from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from fgc_mm.models.channel_map import ChannelMap
from fgc_mm.registry import MODELS


@MODELS.register_module(name='ChannelMapBackbone')
def channel_map_backbone(
    backbone: dict | nn.Module, channel_map: str | ChannelMap
) -> nn.Module:
    """Build a backbone whole, and take out what a channel map leaves out.

    In a config ``type='fgc_mm.ChannelMapBackbone'``. What comes back is the
    backbone itself, of its own class and with its own parameter names, only
    narrower; so everything that takes the backbone takes it. A checkpoint of
    the narrow network loads as it is, one of the whole network loses the
    channels on the way (``load_from``, ``init_cfg`` and
    ``load_state_dict`` alike).

    Args:
        backbone: Config of the whole backbone, or the module, which is
            changed.
        channel_map: The JSON file (:meth:`ChannelMap.text`), or the map.

    Raises:
        FGCError: The file is no channel map, or of another network.
    """
    if not isinstance(backbone, nn.Module):
        backbone = MMPRETRAIN_MODELS.build(backbone)
    if not isinstance(channel_map, ChannelMap):
        channel_map = ChannelMap.load(channel_map)
    return channel_map.shrink(backbone)
