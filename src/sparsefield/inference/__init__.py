"""Loaded models, what they know of a field given observations, and the fields that result."""

from sparsefield.core.moved import moved_names

__getattr__ = moved_names(__name__)
