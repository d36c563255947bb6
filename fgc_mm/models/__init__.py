"""Networks and classifiers."""

from fgc_mm.models.cifar_resnet import CifarResNet
from fgc_mm.models.counting import build_macs_table
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.models.gated_classifier import GatedImageClassifier
from fgc_mm.models.mobilenet_v1 import MobileNetV1

__all__ = [
    'CifarResNet',
    'GatedBackbone',
    'GatedImageClassifier',
    'MobileNetV1',
    'build_macs_table',
]
