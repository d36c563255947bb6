"""Memory of what the network said about each training image."""

from fgc_mm.memory.bank import MemoryBank

__all__ = ['MemoryBank']
