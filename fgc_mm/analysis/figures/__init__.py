"""Figures of the measurements, in the style of the package."""
