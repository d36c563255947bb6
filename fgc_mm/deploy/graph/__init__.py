"""A gated classifier as a graph, and what is made of it."""
