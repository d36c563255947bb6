"""Gates: features in, decision out."""

from fgc_mm.gates.binary_concrete import BinaryConcreteGate
from fgc_mm.gates.decision import GateDecision
from fgc_mm.gates.partial import PartialGate

__all__ = ['BinaryConcreteGate', 'GateDecision', 'PartialGate']
