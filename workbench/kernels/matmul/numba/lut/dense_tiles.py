"""Stripes of a matrix decoded to float32, for large batches, where a dense matmul is faster than table lookup."""

from collections.abc import Callable

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.lut.stripe_layout import Stripes
from workbench.kernels.matmul.numba.supported import STEP_COLUMNS

# entry 8 · byte + j: the sign that bit j of a byte stands for
SIGNS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8), bitorder="little").astype(np.float32) * 2 - 1


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
        group, byte = begin // span, STRIPE_ROWS * begin * planes
        for row in range(STRIPE_ROWS):
            first = byte + (abreast * row if abreast > 1 else 2 * (row % 32) + row // 32)
            if len(column) == 0:
                for plane in range(0, planes, 4):
                    _add_four_planes(signs, first, abreast, size[group, :, row], plane, offset[group, row], out[row], begin, end)
            else:
                out[row, STEP_COLUMNS * begin : STEP_COLUMNS * end] = offset[group, row]
                for plane in range(planes):
                    _add_scaled_plane(signs, first, abreast, size[group, plane, row], plane, column[plane], out[row], begin, end)


@compile_cached
def _add_four_planes(
    signs: np.ndarray,
    first: int,
    abreast: int,
    size: np.ndarray,
    plane: int,
    offset: float,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """Add four planes from `plane` on to the steps of a row, which pass through memory once instead of four times; those that
    are not there count nothing. The first four begin with the offset."""
    planes, apart = len(size), STRIPE_ROWS * (end - begin)
    a, b, c, d = plane, min(plane + 1, planes - 1), min(plane + 2, planes - 1), min(plane + 3, planes - 1)
    size_a = size[a]
    size_b = size[b] if plane + 1 < planes else np.float32(0)
    size_c = size[c] if plane + 2 < planes else np.float32(0)
    size_d = size[d] if plane + 3 < planes else np.float32(0)
    for step in range(end - begin):
        at = first + STRIPE_ROWS * (step - step % abreast) + step % abreast
        # unsigned places, so that nothing is asked about negative ones and eight columns are one instruction
        from_a = STEP_COLUMNS * np.uintp(signs[np.uintp(at + apart * a)])
        from_b = STEP_COLUMNS * np.uintp(signs[np.uintp(at + apart * b)])
        from_c = STEP_COLUMNS * np.uintp(signs[np.uintp(at + apart * c)])
        from_d = STEP_COLUMNS * np.uintp(signs[np.uintp(at + apart * d)])
        to = np.uintp(STEP_COLUMNS * (begin + step))
        for column in range(STEP_COLUMNS):
            j = np.uintp(column)
            out[to + j] = (
                (out[to + j] if plane > 0 else offset)
                + size_a * SIGNS_OF_BYTES[from_a + j]
                + size_b * SIGNS_OF_BYTES[from_b + j]
                + size_c * SIGNS_OF_BYTES[from_c + j]
                + size_d * SIGNS_OF_BYTES[from_d + j]
            )


@compile_cached
def _add_scaled_plane(
    signs: np.ndarray,
    first: int,
    abreast: int,
    size: float,
    plane: int,
    column_scale: np.ndarray,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """Add a plane to the steps of a row, each weight times the factor of its column."""
    for step in range(end - begin):
        at = first + STRIPE_ROWS * (plane * (end - begin) + step - step % abreast) + step % abreast
        source, to = STEP_COLUMNS * np.uintp(signs[np.uintp(at)]), np.uintp(STEP_COLUMNS * (begin + step))
        for column in range(STEP_COLUMNS):
            j = np.uintp(column)
            out[to + j] += size * SIGNS_OF_BYTES[source + j] * column_scale[to + j]


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
