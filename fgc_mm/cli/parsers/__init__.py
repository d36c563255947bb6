"""The arguments of each command; nothing here imports torch or OpenMMLab."""
