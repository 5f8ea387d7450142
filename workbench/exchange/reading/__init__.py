"""Weights that other programs quantized, decoded one tensor at a time."""
