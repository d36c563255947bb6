"""A gated classifier as a graph, and what is made of it."""

from fgc_mm.deploy.graph.network import program_of

__all__ = ['program_of']
