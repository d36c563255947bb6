"""Networks and classifiers."""

from fgc_mm.models.cifar_resnet import CifarResNet
from fgc_mm.models.counting import build_macs_table
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.models.gated_classifier import GatedImageClassifier

__all__ = [
    'CifarResNet',
    'GatedBackbone',
    'GatedImageClassifier',
    'build_macs_table',
]
