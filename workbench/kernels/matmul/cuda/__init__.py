"""Kernels for NVIDIA GPUs in Triton, which is imported on first use: the backend `cuda`."""
