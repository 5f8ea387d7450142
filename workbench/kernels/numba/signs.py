"""Products with sign planes, straight from the stored signs: the sums of `tables.py` looked up 64 rows at a time.

Rows come in stripes of 64, and the signs of a stripe are one forward stream, `[chunk][plane][step][64]`: byte 2r belongs to row r
of the stripe, byte 2r + 1 to row 32 + r (so that sums of even bytes and sums of odd bytes are each 32 neighbouring rows), bit j
to column j of the step. As in T-MAC (arXiv 2407.00088) and bitnet.cpp, inputs become tables of bytes that weights select from;
entries of 14 bits as the default, outliers with a scale of their own and the order of the stream are ours.

A `set` is `joined` planes that share a scale: the planes of a binary code, the highest first, are added up by doubling.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from workbench.kernels.numba import tables
from workbench.kernels.numba.compiled import compiled
from workbench.kernels.numba.tables import Tables
from workbench.kernels.numba.vectors import (
    add_bytes,
    add_floats,
    add_words,
    broadcast,
    fill,
    high_nibbles,
    load,
    load_floats,
    load_halves,
    load_small,
    look_up,
    low_nibbles,
    multiply,
    multiply_add,
    no_bytes,
    odd_bytes,
    prefetch,
    store_floats,
    without_odd,
    words_to_floats,
)

STRIPE = 64  # rows
HALF = STRIPE // 2
AHEAD = 4096  # bytes to ask the memory for in advance


class Matrix(NamedTuple):
    """A matrix as the loops read it.

    `signs` as above, over all stripes. `scale` fp16 bits `[stripe, group, scales, 64]`, one for each plane where `joined` is 1.
    `mean` fp16 bits `[stripe, group, 64]` or empty. `zero` uint8 `[stripe, group, 64]` or empty: codes, of value
    scale · (Σ 2^k bit_k − zero) with bit = (sign + 1) / 2. Chunk c has the steps `edges[c]` to `edges[c + 1]`, a group `span`.
    """

    signs: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    zero: np.ndarray
    edges: np.ndarray
    planes: int
    joined: int
    span: int


@compiled
def add_rows(y: np.ndarray, at: int, sums: Any, bias: Any, factor: Any, scale: np.ndarray, scale_at: int) -> None:
    """y += (sums − bias) · factor · scale for 32 rows."""
    size = multiply(factor, load_halves(scale, scale_at))
    store_floats(y, at, multiply_add(add_floats(sums, bias), size, load_floats(y, at)))


@compiled
def exact_run(
    signs: np.ndarray, at: int, plane_bytes: int, planes: int, table: np.ndarray, table_at: int, steps: int
) -> tuple[Any, Any]:
    """Sums of 64 rows over one run of steps of a set of planes, with entries of 14 bits; even bytes, then odd bytes."""
    low, low_odd, high, high_odd = no_bytes(), no_bytes(), no_bytes(), no_bytes()
    for plane in range(planes):
        low, low_odd = add_words(low, low), add_words(low_odd, low_odd)
        high, high_odd = add_words(high, high), add_words(high_odd, high_odd)
        here, to = at + plane * plane_bytes, table_at
        for _ in range(steps):
            prefetch(signs, here + AHEAD)
            byte = load(signs, here)
            first, second = low_nibbles(byte), high_nibbles(byte)
            found = add_bytes(look_up(broadcast(table, to), first), look_up(broadcast(table, to + 16), second))
            low, low_odd = add_words(low, found), add_words(low_odd, odd_bytes(found))
            found = add_bytes(look_up(broadcast(table, to + 32), first), look_up(broadcast(table, to + 48), second))
            high, high_odd = add_words(high, found), add_words(high_odd, odd_bytes(found))
            here, to = here + STRIPE, to + 2 * HALF
    digit = fill(np.float32(128))
    even = multiply_add(digit, words_to_floats(without_odd(high, high_odd)), words_to_floats(without_odd(low, low_odd)))
    return even, multiply_add(digit, words_to_floats(high_odd), words_to_floats(low_odd))


@compiled
def fast_run(
    signs: np.ndarray, at: int, plane_bytes: int, planes: int, table: np.ndarray, table_at: int, steps: int
) -> tuple[Any, Any]:
    """The same with entries of 7 bits."""
    low, low_odd = no_bytes(), no_bytes()
    for plane in range(planes):
        low, low_odd = add_words(low, low), add_words(low_odd, low_odd)
        here, to = at + plane * plane_bytes, table_at
        for _ in range(steps):
            prefetch(signs, here + AHEAD)
            byte = load(signs, here)
            first, second = low_nibbles(byte), high_nibbles(byte)
            found = add_bytes(look_up(broadcast(table, to), first), look_up(broadcast(table, to + 16), second))
            low, low_odd = add_words(low, found), add_words(low_odd, odd_bytes(found))
            here, to = here + STRIPE, to + HALF
    return words_to_floats(without_odd(low, low_odd)), words_to_floats(low_odd)


@compiled
def add_offsets(m: Matrix, total: np.float32, group: int, y: np.ndarray, y_at: int) -> None:
    """Add what a group's inputs, which sum to `total`, give by the mean of each row, or by the middle of codes less `zero`."""
    mean, zero, scale = m.mean, m.zero, m.scale
    amount = fill(total)
    for at in range(STRIPE * group, STRIPE * group + STRIPE, HALF):
        value = load_floats(y, y_at)
        if len(mean) > 0:
            value = multiply_add(amount, load_halves(mean, at), value)
        if len(zero) > 0:
            middle = fill(np.float32(0.5) * np.float32((1 << m.planes) - 1))
            centre = multiply_add(fill(np.float32(-1)), load_small(zero, at), middle)
            value = multiply_add(amount, multiply(load_halves(scale, at), centre), value)
        store_floats(y, y_at, value)
        y_at += HALF


@compiled
def put(total: np.ndarray, norm: np.ndarray, number: int, y: np.ndarray) -> None:
    """Write the sums of stripe `number`, `total [inputs · 64]`, to their rows of `y`, in the inputs' own size."""
    for i in range(len(y)):
        for row in range(min(STRIPE, y.shape[1] - STRIPE * number)):
            y[i, STRIPE * number + row] = norm[i] * total[STRIPE * i + row]


@compiled(error_model="numpy")
def stripes(m: Matrix, t: Tables, first_stripe: int, last_stripe: int, y: np.ndarray) -> None:
    """64 rows for each stripe of the product for all inputs, into `y [inputs, rows]`."""
    # taking an array out of a tuple costs as much as a hundred weights: only once
    signs, scale, edges = m.signs, m.scale, m.edges
    table, first, start, unit, bias, norm = t.table, t.first, t.start, t.unit, t.bias, t.norm
    inputs, steps = len(y), edges[-1]
    groups = (steps + m.span - 1) // m.span
    sets = (m.planes + m.joined - 1) // m.joined
    offsets = len(m.mean) + len(m.zero) > 0
    total = np.empty(inputs * STRIPE, np.float32)
    for number in range(first_stripe, last_stripe):
        total[:] = 0
        for chunk in range(len(edges) - 1):
            begin, end = edges[chunk], edges[chunk + 1]
            group = number * groups + begin // m.span
            length = STRIPE * (end - begin)  # bytes of a plane
            for i in range(inputs):
                if offsets and begin % m.span == 0:
                    add_offsets(m, t.sums[i, begin // m.span], group, total, STRIPE * i)
                at = STRIPE * m.planes * (number * steps + begin)
                for this in range(sets):
                    own = m.planes - (sets - 1) * m.joined if this == 0 else m.joined
                    source = i * t.each + min(this, t.each - 1)
                    scale_at = STRIPE * (group * m.planes + this if m.joined == 1 else group)
                    # a bit is half a sign and a half
                    weight = np.float32(1 if m.joined == 1 else 0.5 * (1 << (m.joined * (sets - 1 - this))))
                    for run in range(first[source, chunk], first[source, chunk + 1]):
                        here, stop = start[source, run], min(start[source, run + 1], end)
                        to = (source * steps + here) * HALF * t.digits
                        if t.digits == 1:
                            even, odd = fast_run(signs, at + STRIPE * (here - begin), length, own, table, to, stop - here)
                        else:
                            even, odd = exact_run(signs, at + STRIPE * (here - begin), length, own, table, to, stop - here)
                        offset = fill(-bias[source, run] * np.float32((1 << own) - 1))
                        factor = fill(unit[source, run] * weight)
                        add_rows(total, STRIPE * i, even, offset, factor, scale, scale_at)
                        add_rows(total, STRIPE * i + HALF, odd, offset, factor, scale, scale_at + HALF)
                    at += own * length
        put(total, norm, number, y)


@compiled
def serial(
    x: np.ndarray,
    column: np.ndarray,
    signs: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    zero: np.ndarray,
    edges: np.ndarray,
    planes: int,
    joined: int,
    span: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """The product on this thread alone; see `parallel`."""
    m = Matrix(signs, scale, mean, zero, edges, planes, joined, span)
    t = tables.make(x, column, edges, span, digits)
    stripes(m, t, 0, (y.shape[1] + STRIPE - 1) // STRIPE, y)


@compiled(parallel=True)
def parallel(
    x: np.ndarray,
    column: np.ndarray,
    signs: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    zero: np.ndarray,
    edges: np.ndarray,
    planes: int,
    joined: int,
    span: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """y = x Wᵀ for `x [inputs, cols]` and `y [inputs, rows]`, on all threads; see `Matrix` and `tables.make`."""
    made = tables.make(x, column, edges, span, digits)
    # numba cannot carry a named tuple into a parallel loop
    table, first, start, unit, bias, sums, norm, each = made[:8]
    for number in prange((y.shape[1] + STRIPE - 1) // STRIPE):
        m = Matrix(signs, scale, mean, zero, edges, planes, joined, span)
        t = Tables(table, first, start, unit, bias, sums, norm, each, digits)
        stripes(m, t, number, number + 1, y)
