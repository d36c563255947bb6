"""Graph of a gated classifier, passes on it, and its lowering."""

from fgc_mm.deploy.graph.network import program_of

__all__ = ['program_of']
