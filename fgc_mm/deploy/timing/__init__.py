"""Timing networks, and comparing times with MACs."""
