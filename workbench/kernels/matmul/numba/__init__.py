"""Loops compiled for the CPU by numba, which is imported on first use: the backend `numba` and searches for codewords."""
