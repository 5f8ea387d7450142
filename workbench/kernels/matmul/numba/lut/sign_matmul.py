"""Matmuls with sign planes, directly from the stored signs: the sums of `tables.py` looked up for 64 rows at a time.

Rows come in stripes of 64, and the signs of a stripe are one forward stream, `[chunk][plane][step][64]`. Where groups are whole
words of 32 columns and the processor can, four steps lie `abreast` and are summed by `vnni_sums.py`; elsewhere one, by
`pshufb_sums.py`. As in T-MAC (arXiv 2407.00088) and bitnet.cpp, inputs become tables of bytes that weights select from; entries
of 15 bits as the default, outliers with a scale of their own, the order of the stream and dot products of what was looked up are
ours.

A `set` is `joined` planes that share a scale: the planes of a binary code, the highest first, are added up by doubling.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from workbench.kernels.jit.borrowed_arrays import borrow_array
from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    DOTS,
    add_floats,
    fill,
    load_floats,
    load_halves,
    load_small,
    multiply,
    multiply_add,
    store_floats,
)
from workbench.kernels.matmul.numba.lut import pshufb_sums, tables, vnni_sums
from workbench.kernels.matmul.numba.lut.table_entries import OFFSET
from workbench.kernels.matmul.numba.lut.tables import TWO, Tables

STRIPE_ROWS = 64  # rows
HALF_STRIPE_ROWS = STRIPE_ROWS // 2


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


class Planes(NamedTuple):
    """Joined planes of one chunk and stripe: `number` of them, `length` bytes each, whose signs begin at `at`.

    They are set number `which`; their steps are `begin` to `end`, their scales begin at `scale_at` and count `weight` times.
    """

    at: int
    length: int
    number: int
    which: int
    chunk: int
    begin: int
    end: int
    scale_at: int
    weight: np.float32


class Sources(NamedTuple):
    """How tables lie: `bytes` of those of a source, `each` sources an input; see `Tables`."""

    bytes: int
    each: int
    digits: int
    abreast: int


@compile_cached(inline="always")
def _sum_up(
    signs: np.ndarray,
    p: Planes,
    begin: int,
    end: int,
    table: np.ndarray,
    s: Sources,
    source: int,
    together: int,
    sums: np.ndarray,
) -> None:
    """Write the sums of a stripe over some steps of planes to `sums [together · 64]`, for so many inputs from `source` on."""
    at, steps = p.at + STRIPE_ROWS * (begin - p.begin), end - begin
    to = source * s.bytes + begin * TWO * s.digits
    if DOTS and s.abreast > 1:
        if together == 1:
            vnni_sums.sum_one_input(signs, at, p.length, p.number, table, to, steps, s.digits, sums)
        else:
            vnni_sums.sum_four_inputs(signs, at, p.length, p.number, table, to, s.each * s.bytes, steps, s.digits, sums)
    else:
        pshufb_sums.sum_one_input(signs, at, p.length, p.number, table, to, steps, s.digits, sums)


@compile_cached
def _add_rows(
    p: Planes, scale: np.ndarray, sums: np.ndarray, sums_at: int, offset: np.float32, unit: np.float32, total: np.ndarray, at: int
) -> None:
    """total += (sums − offset) · unit · scale for the 64 rows of planes."""
    less, factor = fill(-offset * np.float32((1 << p.number) - 1)), fill(unit * p.weight)
    for half in range(0, STRIPE_ROWS, HALF_STRIPE_ROWS):
        size = multiply(factor, load_halves(scale, p.scale_at + half))
        difference = add_floats(load_floats(sums, sums_at + half), less)
        store_floats(total, at + half, multiply_add(difference, size, load_floats(total, at + half)))


@compile_cached(inline="always")
def _add_planes(
    signs: np.ndarray,
    scale: np.ndarray,
    p: Planes,
    table: np.ndarray,
    first: np.ndarray,
    start: np.ndarray,
    unit: np.ndarray,
    s: Sources,
    sums: np.ndarray,
    total: np.ndarray,
) -> None:
    """Add what planes give to `total [inputs · 64]`; `sums` is room for those of inputs that are looked up together."""
    inputs, most = len(total) // STRIPE_ROWS, len(sums) // STRIPE_ROWS
    table_number, i = min(p.which, s.each - 1), 0  # which of its tables an input has for these planes
    step_offset = 2 * OFFSET[s.digits]  # of a step
    while i < inputs:
        together = most if i + most <= inputs else 1
        _sum_up(signs, p, p.begin, p.end, table, s, i * s.each + table_number, together, sums)
        for k in range(together):
            source = (i + k) * s.each + table_number
            run = first[source, p.chunk]
            _add_rows(
                p, scale, sums, STRIPE_ROWS * k, step_offset * (p.end - p.begin), unit[source, run], total, STRIPE_ROWS * (i + k)
            )
        i += together
    for i in range(inputs):
        source = i * s.each + table_number
        for run in range(first[source, p.chunk] + 1, first[source, p.chunk + 1]):
            _sum_up(signs, p, start[source, run], start[source, run] + s.abreast, table, s, source, 1, sums)
            _add_rows(p, scale, sums, 0, step_offset * s.abreast, unit[source, run], total, STRIPE_ROWS * i)


@compile_cached
def _add_offsets(m: Matrix, amount: np.float32, group: int, total: np.ndarray, to: int) -> None:
    """Add what a group's inputs, whose sum is `amount`, give by the mean of each row, or by the middle of codes less `zero`."""
    mean, zero, scale = m.mean, m.zero, m.scale
    offset = fill(amount)
    for half in range(0, STRIPE_ROWS, HALF_STRIPE_ROWS):
        at, value = STRIPE_ROWS * group + half, load_floats(total, to + half)
        if len(mean) > 0:
            value = multiply_add(offset, load_halves(mean, at), value)
        if len(zero) > 0:
            middle = fill(np.float32(0.5) * np.float32((1 << m.planes) - 1))
            centre = multiply_add(fill(np.float32(-1)), load_small(zero, at), middle)
            value = multiply_add(offset, multiply(load_halves(scale, at), centre), value)
        store_floats(total, to + half, value)


@compile_cached
def _store_rows(total: np.ndarray, norm: np.ndarray, number: int, y: np.ndarray) -> None:
    """Write the sums of stripe `number`, `total [inputs · 64]`, to their rows of `y`, in the inputs' own size."""
    rows, apart = y.shape[1], y.strides[0] // y.itemsize
    for i in range(len(y)):
        if STRIPE_ROWS * (number + 1) <= rows:
            for half in range(0, STRIPE_ROWS, HALF_STRIPE_ROWS):
                scaled = multiply(fill(norm[i]), load_floats(total, STRIPE_ROWS * i + half))
                store_floats(y, i * apart + STRIPE_ROWS * number + half, scaled)
        else:
            for row in range(rows - STRIPE_ROWS * number):
                y[i, STRIPE_ROWS * number + row] = norm[i] * total[STRIPE_ROWS * i + row]


@compile_cached
def multiply_stripes(m: Matrix, t: Tables, first_stripe: int, last_stripe: int, y: np.ndarray) -> None:
    """64 rows for each stripe of the product for all inputs, into `y [inputs, rows]`."""
    sums = np.empty((vnni_sums.INPUTS_AT_ONCE if t.abreast > 1 else 1) * STRIPE_ROWS, np.float32)
    total = np.empty(len(y) * STRIPE_ROWS, np.float32)
    walk(m, t, first_stripe, last_stripe, sums, total, y)


@compile_cached(error_model="numpy")
def walk(m: Matrix, t: Tables, first_stripe: int, last_stripe: int, sums_: np.ndarray, total_: np.ndarray, y: np.ndarray) -> None:
    """The same with room for sums."""
    signs, scale, table, edges = borrow_array(m.signs), borrow_array(m.scale), borrow_array(t.table), borrow_array(m.edges)
    first, start, unit = borrow_array(t.first), borrow_array(t.start), borrow_array(t.unit)
    sums, total = borrow_array(sums_), borrow_array(total_)
    s = Sources(len(t.table) // len(t.first), t.each, t.digits, t.abreast)
    groups = (edges[-1] + m.span - 1) // m.span
    sets = (m.planes + m.joined - 1) // m.joined
    offsets = len(m.mean) + len(m.zero) > 0
    for number in range(first_stripe, last_stripe):
        total[:] = 0
        for chunk in range(len(edges) - 1):
            begin, end = edges[chunk], edges[chunk + 1]
            group = number * groups + begin // m.span
            if offsets and begin % m.span == 0:
                for i in range(len(y)):
                    _add_offsets(m, t.sums[i, begin // m.span], group, total, STRIPE_ROWS * i)
            at, length = STRIPE_ROWS * m.planes * (number * edges[-1] + begin), STRIPE_ROWS * (end - begin)
            for which in range(sets):
                planes = m.planes - (sets - 1) * m.joined if which == 0 else m.joined
                scale_at = STRIPE_ROWS * (group * m.planes + which if m.joined == 1 else group)
                # a bit is half a sign and a half
                weight = np.float32(1 if m.joined == 1 else 0.5 * (1 << (m.joined * (sets - 1 - which))))
                p = Planes(at, length, planes, which, chunk, begin, end, scale_at, weight)
                _add_planes(signs, scale, p, table, first, start, unit, s, sums, total)
                at += planes * length
        _store_rows(total, t.norm, number, y)


@compile_cached
def multiply_serial(
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
    abreast: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """The product on this thread alone; see `multiply_parallel`."""
    m = Matrix(signs, scale, mean, zero, edges, planes, joined, span)
    t = tables.make(x, column, edges, span, digits, abreast)
    multiply_stripes(m, t, 0, (y.shape[1] + STRIPE_ROWS - 1) // STRIPE_ROWS, y)


@compile_cached(parallel=True)
def multiply_parallel(
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
    abreast: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """y = x Wᵀ for `x [inputs, cols]` and `y [inputs, rows]`, on all threads; see `Matrix` and `tables.Tables`."""
    # numba cannot carry a named tuple into a parallel loop
    table, first, start, unit, sums, norm, tables_per_input = tables.allocate_tables(
        len(x), column, edges, span, digits, abreast
    )[:7]
    if len(x) == 1:  # starting threads takes as long
        tables.fill(
            x[0], 0, column, edges, span, Tables(table, first, start, unit, sums, norm, tables_per_input, digits, abreast)
        )
    else:
        for i in prange(len(x)):
            tables.fill(
                x[i], i, column, edges, span, Tables(table, first, start, unit, sums, norm, tables_per_input, digits, abreast)
            )
    for number in prange((y.shape[1] + STRIPE_ROWS - 1) // STRIPE_ROWS):
        m = Matrix(signs, scale, mean, zero, edges, planes, joined, span)
        t = Tables(table, first, start, unit, sums, norm, tables_per_input, digits, abreast)
        multiply_stripes(m, t, number, number + 1, y)
