"""Networks without the channels that are never, or always, open."""
