"""The sums of 4 neighbouring inputs under all 16 patterns of signs, as integers of one or two bytes, for `signs.py` to look up.

Inputs come in steps of 8, two tables each; steps come in chunks, and within a chunk in runs that share one scale. An entry is
`round(sum / scale) + offset`, never negative, and the entries that one step can select together fit:

    fast    7 bits: any two add up to at most 255, so one byte holds the sum of a step
    exact  14 bits as a low and a high digit of 7: either digit of any two adds up to at most 255

A step so large that the scale of its chunk would round the others away is a run of its own (LLM inputs have such outliers). Then
rounding costs less than 1.5e-4 of the output (root mean square, signs that know nothing of the inputs), whatever the inputs are.
"""

from typing import NamedTuple

import numpy as np

from workbench.kernels.numba.compiled import compiled
from workbench.kernels.numba.vectors import add_floats, energy, magnitude, sign_sums, store_entries, store_high, store_low, two

STEP = 8  # inputs of a step
BOUND = 1.2e-4 * 16319 * np.sqrt(6)  # most that a step may be of its chunk's norm / √steps, for rounding to cost below 1.2e-4
# By digits: the scale of a step with Σ|x| = 1; 127.5 and 16320 fit, less the rounding. Where all inputs are equally large, as a
# Hadamard transform makes of a single one, their sums are whole numbers of it: halves would all be rounded up, and add up.
UNIT = np.array([0, 1 / 124, 1 / 16312])


FINITE = 0x7F800000  # bits of every finite float without its sign are below these
BITS = 0x7FFFFFFF


class Tables(NamedTuple):
    """The tables of all inputs; `each` of them has its own for every scaling of the columns (`source` counts them all).

    `table`: of each source and step, the low digits of both tables, then the high ones if `digits` is 2. Run k of a source begins
    at step `start[source, k]`, its entries count in units of `unit[source, k]`, their offsets add up to `bias[source, k]`; the
    runs of chunk c are `first[source, c]` to `first[source, c + 1]`. Inputs were divided by `norm [inputs]`, and
    `sums [inputs, groups]` add them up.
    """

    table: np.ndarray
    first: np.ndarray
    start: np.ndarray
    unit: np.ndarray
    bias: np.ndarray
    sums: np.ndarray
    norm: np.ndarray
    each: int
    digits: int


@compiled
def make(x: np.ndarray, column: np.ndarray, edges: np.ndarray, span: int, digits: int) -> Tables:
    """Tables of `x [inputs, cols]`, times each row of `column [each, cols]` if there are any; a group has `span` steps."""
    inputs, steps, each = len(x), edges[-1], max(1, len(column))
    sources, groups = inputs * each, (steps + span - 1) // span
    t = Tables(
        np.empty(sources * steps * 32 * digits, np.uint8),
        np.empty((sources, len(edges)), np.int32),
        np.empty((sources, steps + 1), np.int32),
        np.empty((sources, steps), np.float32),
        np.empty((sources, steps), np.float32),
        np.zeros((inputs, groups), np.float32),
        np.empty(inputs, np.float32),
        each,
        digits,
    )
    plain, scaled = np.empty(steps * STEP, np.float32), np.empty(steps * STEP, np.float32)
    for i in range(inputs):
        t.norm[i] = normalised(x[i], plain)
        for group in range(groups):
            t.sums[i, group] = plain[STEP * span * group : STEP * span * (group + 1)].sum()
        if len(column) == 0:
            build(plain, edges, t, i)
        for plane in range(len(column)):
            scaled[:] = 0
            for j in range(x.shape[1]):
                scaled[j] = plain[j] * column[plane, j]
            build(scaled, edges, t, i * each + plane)
    return t


@compiled
def normalised(x: np.ndarray, out: np.ndarray) -> np.float32:
    """Write x / max|x| to `out`, which may be longer, and return max|x|; NaN where an input is not finite."""
    bits, largest = x.view(np.int32), np.int32(0)
    for i in range(len(x)):
        largest = max(largest, bits[i] & np.int32(BITS))
    if largest >= FINITE:
        return np.float32(np.nan)
    most = np.array([largest], np.int32).view(np.float32)[0]
    factor = 1 / np.float64(most) if largest > 0 else 0.0  # float64: the inverse of a tiny float32 is none
    for i in range(len(x)):
        out[i] = np.float32(x[i] * factor)
    out[len(x) :] = 0
    return most


@compiled
def magnitudes(x: np.ndarray, begin: int, end: int, size: np.ndarray) -> tuple[np.float32, np.float32]:
    """Fill Σ|x| of each step; the largest that is no outlier's among these steps, and from where on a step is one."""
    total = np.float32(0)
    for step in range(begin, end):
        size[step] = magnitude(x, STEP * step)
        total += energy(x, STEP * step)
    most = np.float32(BOUND) * np.sqrt(total / np.float32(end - begin))
    largest = np.float32(0)
    for step in range(begin, end):
        largest = max(largest, size[step] if size[step] <= most else np.float32(0))
    return largest, most


@compiled(error_model="numpy")
def build(x: np.ndarray, edges: np.ndarray, t: Tables, source: int) -> None:
    """Fill the tables of number `source` from `x [steps · 8]`."""
    first, start, scale, bias = t.first[source], t.start[source], t.unit[source], t.bias[source]
    steps = len(x) // STEP
    size = np.empty(steps, np.float32)
    runs = 0
    for chunk in range(len(edges) - 1):
        first[chunk] = runs
        begin, end = edges[chunk], edges[chunk + 1]
        largest, most = magnitudes(x, begin, end, size)
        fresh = True  # whether the next step begins a run
        for step in range(begin, end):
            outlier = size[step] > most
            if fresh or outlier:
                start[runs] = step
                scale[runs] = (size[step] if outlier else largest) * np.float32(UNIT[t.digits]) + np.float32(1e-30)
                bias[runs] = 0
                runs += 1
            fresh = outlier
            bias[runs - 1] += fill_step(
                x, STEP * step, 1 / scale[runs - 1], t.digits, t.table, (source * steps + step) * 32 * t.digits
            )
    first[len(edges) - 1] = runs
    start[runs] = steps


@compiled
def fill_step(x: np.ndarray, at: int, inverse: np.float32, digits: int, table: np.ndarray, to: int) -> np.float32:
    """The two tables of one step; returns the sum of their offsets."""
    rounding = np.float32(0.5)
    first = np.floor((abs(x[at]) + abs(x[at + 1]) + abs(x[at + 2]) + abs(x[at + 3])) * inverse + rounding)
    second = np.floor((abs(x[at + 4]) + abs(x[at + 5]) + abs(x[at + 6]) + abs(x[at + 7])) * inverse + rounding)
    entries = add_floats(sign_sums(x, at, inverse), two(first + rounding, second + rounding))
    if digits == 1:
        store_entries(table, to, entries)
    else:
        store_low(table, to, entries)
        store_high(table, to + 32, entries)
    return first + second
