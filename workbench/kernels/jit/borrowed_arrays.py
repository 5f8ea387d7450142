"""Arrays that compiled loops pass on without reference counting.

numba counts the holders of an array at each call of another function, in memory that all threads share: as slow as a hundred
weights, and much slower than a loop's own work where it passes arrays on for every few of them.
"""

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import data


@compile_cached
def borrow_array(array: np.ndarray) -> np.ndarray:
    """The same elements, in one piece, without a share in their memory; the array itself must be held as long."""
    return carray(data(array), array.shape)
