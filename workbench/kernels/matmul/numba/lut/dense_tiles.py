"""Stripes of a matrix decoded to float32, for large batches, where a dense matmul is faster than table lookup."""

from collections.abc import Callable

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.lut.stripe_layout import Stripes
from workbench.kernels.matmul.numba.supported import STEP_COLUMNS

# SIGNS[byte, j]: the sign that bit j of a byte stands for
SIGNS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) * 2 - 1


def expand_tile(s: Stripes, expand: Callable[..., None]) -> np.ndarray:
    """All rows, float32 `[64 · stripes, cols]`."""
    size, offset = _decode_plane_scales(s)
    steps = int(s.edges[-1])
    signs = s.signs.reshape(-1, steps * s.planes * STRIPE_ROWS)
    column = np.pad(s.column, ((0, 0), (0, steps * STEP_COLUMNS - s.cols))) if s.column.size else s.column
    out = np.empty((len(signs) * STRIPE_ROWS, steps * STEP_COLUMNS), np.float32)
    expand(signs, s.edges, s.span, s.abreast, size, offset, column, out)
    return out[:, : s.cols]


def _decode_plane_scales(s: Stripes) -> tuple[np.ndarray, np.ndarray]:
    """What a sign of each plane counts `[stripe, group, plane, 64]`, and what is added to each weight `[stripe, group, 64]`."""
    groups = -(-int(s.edges[-1]) // s.span)
    scale = s.scale.view(np.float16).reshape(-1, groups, s.planes if s.joined == 1 else 1, STRIPE_ROWS).astype(np.float32)
    if s.joined == 1:
        mean = s.mean.view(np.float16).reshape(-1, groups, STRIPE_ROWS).astype(np.float32) if s.mean.size else 0
        return scale, np.broadcast_to(mean, scale[:, :, 0].shape).copy()
    bits = 0.5 * 2.0 ** np.arange(s.planes - 1, -1, -1)
    zero = s.zero.reshape(-1, groups, STRIPE_ROWS).astype(np.float32)
    return scale * bits[:, None].astype(np.float32), scale[:, :, 0] * ((2**s.planes - 1) / 2 - zero)


@compile_cached
def _expand_stripe(
    signs: np.ndarray,
    edges: np.ndarray,
    span: int,
    abreast: int,
    size: np.ndarray,
    offset: np.ndarray,
    column: np.ndarray,
    out: np.ndarray,
) -> None:
    """One stripe: `signs [bytes]`, `size [group, plane, 64]`, `offset [group, 64]` to `out [64, steps · 8]`."""
    planes = size.shape[1]
    for chunk in range(len(edges) - 1):
        begin, end = edges[chunk], edges[chunk + 1]
        group = begin // span
        for row in range(STRIPE_ROWS):
            out[row, STEP_COLUMNS * begin : STEP_COLUMNS * end] = offset[group, row]
            position = abreast * row if abreast > 1 else 2 * (row % 32) + row // 32
            for plane in range(planes):
                weight = size[group, plane, row]
                at = STRIPE_ROWS * (begin * planes + plane * (end - begin)) + position
                for step in range(end - begin):
                    pattern = SIGNS_OF_BYTE[signs[at + STRIPE_ROWS * (step - step % abreast) + step % abreast]]
                    to = STEP_COLUMNS * (begin + step)
                    for j in range(STEP_COLUMNS):
                        value = weight * pattern[j]
                        out[row, to + j] += value if len(column) == 0 else value * column[plane, to + j]


@compile_cached
def expand_serial(
    signs: np.ndarray,
    edges: np.ndarray,
    span: int,
    abreast: int,
    size: np.ndarray,
    offset: np.ndarray,
    column: np.ndarray,
    out: np.ndarray,
) -> None:
    """All stripes, on this thread alone."""
    for s in range(len(signs)):
        _expand_stripe(signs[s], edges, span, abreast, size[s], offset[s], column, out[STRIPE_ROWS * s : STRIPE_ROWS * (s + 1)])


@compile_cached(parallel=True)
def expand_parallel(
    signs: np.ndarray,
    edges: np.ndarray,
    span: int,
    abreast: int,
    size: np.ndarray,
    offset: np.ndarray,
    column: np.ndarray,
    out: np.ndarray,
) -> None:
    """All stripes, on all threads."""
    for s in prange(len(signs)):
        _expand_stripe(signs[s], edges, span, abreast, size[s], offset[s], column, out[STRIPE_ROWS * s : STRIPE_ROWS * (s + 1)])
