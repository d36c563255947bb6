"""Gates: features in, decision out."""

from fgc_mm.gates.binary_concrete import BinaryConcreteGate
from fgc_mm.gates.build import build_gate
from fgc_mm.gates.decision import GateDecision, ScalingDecision
from fgc_mm.gates.fbs import FBSGate
from fgc_mm.gates.ftwt import FTWTGate
from fgc_mm.gates.grouped import GroupedGate
from fgc_mm.gates.manidp import ManiDPGate
from fgc_mm.gates.open_gate import OpenGate
from fgc_mm.gates.partial import PartialGate

__all__ = [
    'BinaryConcreteGate',
    'FBSGate',
    'FTWTGate',
    'GateDecision',
    'GroupedGate',
    'ManiDPGate',
    'OpenGate',
    'PartialGate',
    'ScalingDecision',
    'build_gate',
]
