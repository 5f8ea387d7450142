"""Figures of what a method did inside a layer: codewords, groups, transform, sweeps, calibration."""
