"""Networks and classifiers."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.models.channel_map import ChannelMap
from fgc_mm.models.channel_map_backbone import channel_map_backbone
from fgc_mm.models.cifar_resnet import CifarResNet
from fgc_mm.models.compact_backbone import CompactBackbone
from fgc_mm.models.counting import build_macs_table
from fgc_mm.models.data_preprocessor import NonBlockingDataPreprocessor
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.models.gated_classifier import GatedImageClassifier
from fgc_mm.models.gated_model import GatedModelMixin, build_gated_model
from fgc_mm.models.kaiming_weights import KaimingWeights
from fgc_mm.models.mobilenet_v1 import MobileNetV1

__all__ = [
    'ChannelMap',
    'CifarResNet',
    'CompactBackbone',
    'GatedBackbone',
    'GatedImageClassifier',
    'GatedModelMixin',
    'KaimingWeights',
    'MobileNetV1',
    'NonBlockingDataPreprocessor',
    'build_gated_model',
    'build_macs_table',
    'channel_map_backbone',
]
