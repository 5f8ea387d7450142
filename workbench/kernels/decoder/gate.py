"""The gate of a SwiGLU unit."""

import numpy as np

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.exponential import compute_exponential


@compile_cached(fastmath=True, error_model="numpy")
def multiply_by_silu(gate: np.ndarray, up: np.ndarray) -> None:
    """silu(gate) · up for float32 `[tokens, width]`, written to `up`."""
    for token in range(len(gate)):
        for i in range(gate.shape[1]):
            value = gate[token, i]
            up[token, i] *= value / (np.float32(1) + compute_exponential(-value))
