"""exp in float32 for compiled loops that LLVM turns into vector instructions, which it does not do with the C library's."""

import numpy as np
from numba import types

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import FLOAT, I32, define_operation

LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
LOWEST = np.float32(-87.0)  # exp of less is no normal float32
HIGHEST = np.float32(88.0)

bits_to_float = define_operation("bits_to_float", types.float32, lambda b, bits: b.bitcast(b.trunc(bits, I32), FLOAT))


@compile_cached(fastmath=True, error_model="numpy")
def compute_exponential(x: float) -> float:
    """exp(x) with a relative error below 1e-6; arguments beyond float32 count as the last ones within it.

    x = k ln 2 + r with a whole number k: 2^k is written into the exponent, and exp(r), |r| ≤ 0.35, is a polynomial.
    """
    bounded = min(max(np.float32(x), LOWEST), HIGHEST)
    k = np.floor(bounded * LOG2_E + np.float32(0.5))
    r = bounded - k * LN_2
    power = np.float32(1 / 5040) * r + np.float32(
        1 / 720
    )  # written out: a loop over numbers would keep the caller's from vectors
    power = power * r + np.float32(1 / 120)
    power = power * r + np.float32(1 / 24)
    power = power * r + np.float32(1 / 6)
    power = power * r + np.float32(1 / 2)
    power = power * r + np.float32(1)
    power = power * r + np.float32(1)
    return power * bits_to_float((np.int32(k) + np.int32(127)) << np.int32(23))
