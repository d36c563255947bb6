"""Removing channels that are never open and gates that are always open."""
