"""Gate losses: a ``GateBatch`` in, scalar out."""

from fgc_mm.losses.base import GateBatch, GateLoss
from fgc_mm.losses.batch_shaping import BatchShapingLoss
from fgc_mm.losses.coupled_batch import CoupledBatch
from fgc_mm.losses.coupling import FeatureGateCouplingLoss
from fgc_mm.losses.gram_similarity import GramSimilarityLoss
from fgc_mm.losses.l0 import L0Loss
from fgc_mm.losses.macs_target import MACsTargetLoss
from fgc_mm.losses.mask_prediction import MaskPredictionLoss
from fgc_mm.losses.saliency_l1 import SaliencyL1Loss

__all__ = [
    'BatchShapingLoss',
    'CoupledBatch',
    'FeatureGateCouplingLoss',
    'GateBatch',
    'GateLoss',
    'GramSimilarityLoss',
    'L0Loss',
    'MACsTargetLoss',
    'MaskPredictionLoss',
    'SaliencyL1Loss',
]
