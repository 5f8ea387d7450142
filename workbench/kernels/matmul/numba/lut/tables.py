"""The sums of 4 neighbouring inputs under all 16 patterns of signs, as integers of 1 or 2 bytes, looked up by `sign_matmul.py`.

Inputs come in steps of 8, two tables each; steps come in chunks that share one scale. An entry is
`round(sum / scale) + offset`, and fits:

    fast    a byte, which may begin again at 0: the two that one step selects add up to 0 to 255, so a byte holds their sum
    exact   15 bits as a low digit of 7 and a high one of 8: a byte holds the sum of two low digits, but one high digit

A step so large that the scale of its chunk would round the others away has one of its own (LLM inputs have such outliers): it is
added with its chunk, and then once more on its own, times what its scale is larger. So the loops are the same for all inputs, and
rounding costs less than 0.8e-4 of the output (root mean square, signs that know nothing of the inputs), whatever the inputs are.
"""

from typing import NamedTuple

import numpy as np

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.matmul.numba.lut import table_entries
from workbench.kernels.matmul.numba.supported import STEP_COLUMNS

QUARTER = 16  # entries of a table
TWO = 2 * QUARTER
LINE = 64  # bytes of a cache line
# By digits: the scale of a step of size 1: Σ|x| of its 8 inputs for one digit, of the larger 4 of them for two; 127.5 and 16383.5
# fit, less the rounding. Where all inputs are equally large, as a Hadamard transform makes of a single one, their sums are whole
# numbers of it: halves would all be rounded up, and add up.
UNIT = np.array([0, 1 / 124, 1 / 16380])
# By digits: the most that a step may be of its chunk's norm / √steps; for two digits rounding then costs below 0.8e-4
MAX_STEP_SIZE = np.array([0, 4.8, 0.8e-4 * 16380 * np.sqrt(6)])
SMALLEST = np.float32(1e-30)  # a unit is not 0

FINITE = 0x7F800000  # bits of every finite float without its sign are below these
MAGNITUDE_BITS = 0x7FFFFFFF


class Tables(NamedTuple):
    """The tables of all inputs; `each` of them has its own for every scaling of the columns (`source` counts them all).

    `table`: of each source and `abreast` steps at a time, the first tables of the steps side by side, then the second ones: low
    digits, then high ones if `digits` is 2. Run k of a source begins at step `start[source, k]`, its entries count in units of
    `unit[source, k]`. The runs of chunk c are `first[source, c]` to `first[source, c + 1]`: first the whole chunk, then the
    outliers, `abreast` steps each, with what their unit is larger. Inputs were divided by `norm [inputs]`, and
    `sums [inputs, groups]` add them up.
    """

    table: np.ndarray
    first: np.ndarray
    start: np.ndarray
    unit: np.ndarray
    sums: np.ndarray
    norm: np.ndarray
    each: int
    digits: int
    abreast: int


@compile_cached
def _allocate_aligned(size: int) -> np.ndarray:
    """So many bytes that begin on a cache line: tables are loaded 64 bytes at a time, and two lines take twice as long."""
    bytes_ = np.empty(size + LINE, np.uint8)
    start = -bytes_.ctypes.data % LINE
    return bytes_[start : start + size]


@compile_cached
def allocate_tables(inputs: int, column: np.ndarray, edges: np.ndarray, span: int, digits: int, abreast: int) -> Tables:
    """Space for the tables of so many inputs; see `fill`."""
    steps, tables_per_input = edges[-1], max(1, len(column))
    sources, runs = inputs * tables_per_input, edges[-1] // abreast + len(edges)
    return Tables(
        _allocate_aligned(sources * steps * TWO * digits),
        np.empty((sources, len(edges)), np.int32),
        np.empty((sources, runs), np.int32),
        np.empty((sources, runs), np.float32),
        np.empty((inputs, (steps + span - 1) // span), np.float32),
        np.empty(inputs, np.float32),
        tables_per_input,
        digits,
        abreast,
    )


@compile_cached
def make(x: np.ndarray, column: np.ndarray, edges: np.ndarray, span: int, digits: int, abreast: int) -> Tables:
    """The tables of `x [inputs, cols]`; see `fill`."""
    t = allocate_tables(len(x), column, edges, span, digits, abreast)
    for i in range(len(x)):
        fill(x[i], i, column, edges, span, t)
    return t


@compile_cached
def fill(x: np.ndarray, i: int, column: np.ndarray, edges: np.ndarray, span: int, t: Tables) -> None:
    """The tables of input `i`, `x [cols]`, times each row of `column [each, cols]` if there are any; a group has `span` steps."""
    plain = np.empty(STEP_COLUMNS * edges[-1], np.float32)
    t.norm[i] = _normalize_input(x, plain)
    for group in range(t.sums.shape[1]):
        t.sums[i, group] = _sum_values(plain[STEP_COLUMNS * span * group : STEP_COLUMNS * span * (group + 1)])
    if len(column) == 0:
        build(plain, edges, t, i)
        return
    scaled = np.zeros(len(plain), np.float32)
    for plane in range(len(column)):
        for j in range(len(x)):
            scaled[j] = plain[j] * column[plane, j]
        build(scaled, edges, t, i * t.each + plane)


@compile_cached(fastmath={"reassoc", "nsz"})
def _sum_values(x: np.ndarray) -> np.float32:
    """Σx, in any order."""
    accumulated = np.float32(0)
    for i in range(len(x)):
        accumulated += x[i]
    return accumulated


@compile_cached
def _normalize_input(x: np.ndarray, out: np.ndarray) -> np.float32:
    """Write x / max|x| to `out`, which may be longer, and return max|x|; NaN where an input is not finite."""
    bits, largest = x.view(np.int32), np.int32(0)
    for i in range(len(x)):
        largest = max(largest, bits[i] & np.int32(MAGNITUDE_BITS))
    if largest >= FINITE:
        return np.float32(np.nan)
    most = np.array([largest], np.int32).view(np.float32)[0]
    factor = 1 / np.float64(most) if largest > 0 else 0.0  # float64: the inverse of a tiny float32 is none
    for i in range(len(x)):
        out[i] = np.float32(x[i] * factor)
    out[len(x) :] = 0
    return most


@compile_cached(fastmath={"reassoc", "nsz"})
def _sum_squares(x: np.ndarray) -> np.float32:
    """Σx², in any order."""
    accumulated = np.float32(0)
    for i in range(len(x)):
        accumulated += x[i] * x[i]
    return accumulated


@compile_cached
def _compute_step_sizes(
    x: np.ndarray, begin: int, end: int, digits: int, abreast: int, size: np.ndarray
) -> tuple[np.float32, np.float32]:
    """Fill the largest size of a step for `abreast` steps at a time; the largest that is no outlier's among the steps from
    `begin` to `end`, and from where on one is."""
    most = np.float32(MAX_STEP_SIZE[digits]) * np.sqrt(
        _sum_squares(x[STEP_COLUMNS * begin : STEP_COLUMNS * end]) / np.float32(end - begin)
    )
    largest = np.float32(0)
    for block in range(begin, end, abreast):
        size[block] = table_entries.compute_entry_bound(x, STEP_COLUMNS * block, abreast, digits)
        largest = max(largest, size[block] if size[block] <= most else np.float32(0))
    return largest, most


@compile_cached(error_model="numpy")
def build(x: np.ndarray, edges: np.ndarray, t: Tables, source: int) -> None:
    """Fill the tables of number `source` from `x [steps · 8]`."""
    table, digits, abreast = t.table, t.digits, t.abreast
    first, start, unit = t.first[source], t.start[source], t.unit[source]
    size, coarsest = np.empty(edges[-1], np.float32), np.float32(UNIT[digits])
    to, runs = source * edges[-1] * TWO * digits, 0
    for chunk in range(len(edges) - 1):
        largest, most = _compute_step_sizes(x, edges[chunk], edges[chunk + 1], digits, abreast, size)
        common = largest * coarsest + SMALLEST
        first[chunk], start[runs], unit[runs] = runs, edges[chunk], common
        for block in range(edges[chunk], edges[chunk + 1], abreast):
            scale_unit = common
            if size[block] > most:
                scale_unit, runs = size[block] * coarsest + SMALLEST, runs + 1
                start[runs], unit[runs] = block, scale_unit - common
            table_entries.write(x, STEP_COLUMNS * block, 1 / scale_unit, abreast, digits, table, to)
            to += TWO * digits * abreast
        runs += 1
    first[len(edges) - 1] = runs
