"""One file per command, with a function ``main`` of its arguments."""
