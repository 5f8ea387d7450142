"""Figures of weights: distributions, the matrix, channels, and the map of all layers."""
