"""Gates: features in, decision out."""

from fgc_mm.gates.binary_concrete import BinaryConcreteGate
from fgc_mm.gates.decision import GateDecision

__all__ = ['BinaryConcreteGate', 'GateDecision']
