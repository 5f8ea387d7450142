"""The entries of tables: sums of 4 inputs under all 16 patterns of signs, for all tables of one step or of four at a time.

The 8 inputs of a step are two quarters, with a table each. An entry is the sum in units, moved up by an offset and rounded to an
integer. It is made of two parts: the sum of the first two inputs of a quarter under 4 patterns, and that of the other two, which
has the offset already, so that an entry costs one addition.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    BYTES,
    FLOAT,
    I16,
    I32,
    I64,
    build_splat,
    compute_address,
    declare_function,
    define_operation,
    fetch,
)
from workbench.kernels.matmul.numba.lut.vnni_sums import WORD_BYTES
from workbench.kernels.matmul.numba.supported import STEP_COLUMNS

ENTRIES = ir.VectorType(I32, 16)  # of one table
PAIR = ir.VectorType(I16, 32)  # entries of two tables, side by side by their numbers
OFFSET = np.array([0, 64, 16384], np.float32)  # by digits
WRAP = 256  # a byte may begin again at 0: the one that holds the sum of two of them does so too


def _pick_elements(b: Any, vector: Any, places: Sequence[int]) -> Any:
    """The elements of a vector at some places."""
    return b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, len(places)), list(places)))


def _pick_strided(b: Any, vector: Any, first: int, apart: int) -> Any:
    """The elements `first`, `first + apart`, … of a vector."""
    return _pick_elements(b, vector, range(first, vector.type.count, apart))


def _sum_quarter_magnitudes(b: Any, x: Any) -> Any:
    """Σ|x| of every 4 inputs."""
    size = b.call(declare_function(b, f"llvm.fabs.v{x.type.count}f32", x.type, [x.type]), [x])
    first, second, third, fourth = (_pick_strided(b, size, quarter, 4) for quarter in range(4))
    return b.fadd(b.fadd(first, second), b.fadd(third, fourth))


def _emit_largest(b: Any, data: Any, at: Any, steps: int, digits: int) -> Any:
    """What bounds the entries of so many steps: the largest Σ|x| of a step, or with two digits of a quarter."""
    size = _sum_quarter_magnitudes(b, fetch(b, data, at, ir.VectorType(FLOAT, STEP_COLUMNS * steps)))
    if digits == 1:
        size = b.fadd(_pick_strided(b, size, 0, 2), _pick_strided(b, size, 1, 2))
    largest = b.extract_element(size, I32(0))
    for lane in range(1, size.type.count):
        other = b.extract_element(size, I32(lane))
        largest = b.select(b.fcmp_ordered(">", other, largest), other, largest)
    return largest


def _sum_signed_pairs(b: Any, x: Any, first: int) -> Any:
    """Inputs `first` and `first + 1` of each quarter under 4 patterns: bit 0 is set where the first is added, bit 1 where the
    second is."""
    count = x.type.count
    total = build_splat(x.type, 0.0)
    for bit in range(2):
        sign = ir.Constant(x.type, [1.0 if lane >> bit & 1 else -1.0 for lane in range(count)])
        same = _pick_elements(b, x, [lane // 4 * 4 + first + bit for lane in range(count)])
        total = b.call(declare_function(b, f"llvm.fmuladd.v{count}f32", x.type, [x.type] * 3), [same, sign, total])
    return total


def _compute_entries(b: Any, x: Any, offset: float) -> list[Any]:
    """The 16 entries of each quarter of `x`, as integers."""
    first, second = _sum_signed_pairs(b, x, 0), _sum_signed_pairs(b, x, 2)
    second = b.fadd(second, build_splat(x.type, offset + 0.5))
    entries = []
    for quarter in range(0, x.type.count, 4):
        low = _pick_elements(b, first, [quarter + entry % 4 for entry in range(16)])
        high = _pick_elements(b, second, [quarter + entry // 4 for entry in range(16)])
        entries.append(b.fptosi(b.fadd(low, high), ENTRIES))
    return entries


def _pair_entries(b: Any, first: Any, second: Any) -> Any:
    """Entries of two tables, below 2^15, as neighbouring 16 bits."""
    return b.bitcast(b.or_(first, b.shl(second, build_splat(ENTRIES, 16))), PAIR)


def _extract_digit(b: Any, pairs: Sequence[Any], number: int, mask: int) -> Any:
    """The entries of all tables of one pair or two, as bytes: their lowest bits, or with number 1 what is above 7 of them."""
    moved = [b.bitcast(b.add(pair, pair) if number else pair, BYTES) for pair in pairs]
    places = [
        BYTES.count * which + 4 * entry + 2 * table + number
        for which in range(len(pairs))
        for table in range(2)
        for entry in range(ENTRIES.count)
    ]
    shuffled = b.shuffle_vector(moved[0], moved[-1], ir.Constant(ir.VectorType(I32, len(places)), places))
    return shuffled if mask == 255 else b.and_(shuffled, build_splat(shuffled.type, mask))


def _emit_tables(b: Any, data: Any, at: Any, inverse: Any, table: Any, to: Any, steps: int, digits: int) -> None:
    """Write the tables of so many steps, whose unit is 1 / inverse: the first ones side by side, then the second ones; low digits
    (of 7 bits where there are two), then high ones."""
    inputs = fetch(b, data, at, ir.VectorType(FLOAT, STEP_COLUMNS * steps))
    unit = b.insert_element(ir.Constant(inputs.type, ir.Undefined), inverse, I32(0))
    x = b.fmul(inputs, _pick_elements(b, unit, [0] * inputs.type.count))
    entries = _compute_entries(b, x, float(OFFSET[digits] + (WRAP if digits == 1 else 0)))
    ordered = entries[::2] + entries[1::2]
    pairs = [_pair_entries(b, first, second) for first, second in zip(ordered[::2], ordered[1::2], strict=True)]
    for number in range(digits):
        mask = 127 if digits == 2 and number == 0 else 255
        for first in range(0, len(pairs), 2):
            digit_bytes = _extract_digit(b, pairs[first : first + 2], number, mask)
            target = b.add(to, I64(ENTRIES.count * (number * len(ordered) + 2 * first)))
            b.store(digit_bytes, compute_address(b, table, target, digit_bytes.type), align=1)


def _define_largest(steps: int, digits: int) -> Any:
    """`_emit_largest` for so many steps and digits."""
    return define_operation(
        f"largest_{steps}_{digits}", types.float32, lambda b, data, at: _emit_largest(b, data, at, steps, digits)
    )


def _define_write(steps: int, digits: int) -> Any:
    """`_emit_tables` for so many steps and digits."""

    def emit(b: Any, data: Any, at: Any, inverse: Any, table: Any, to: Any) -> Any:
        return _emit_tables(b, data, at, inverse, table, to, steps, digits)

    return define_operation(f"write_{steps}_{digits}", types.void, emit)


largest_fast, largest_exact = _define_largest(1, 1), _define_largest(1, 2)
largest_fast_word, largest_exact_word = _define_largest(WORD_BYTES, 1), _define_largest(WORD_BYTES, 2)
write_fast, write_exact = _define_write(1, 1), _define_write(1, 2)
write_fast_word, write_exact_word = _define_write(WORD_BYTES, 1), _define_write(WORD_BYTES, 2)


@compile_cached(inline="always")
def compute_entry_bound(x: np.ndarray, at: int, abreast: int, digits: int) -> np.float32:
    """What bounds the entries of so many steps, as `_emit_largest`."""
    if abreast == 1:
        return largest_fast(x, at) if digits == 1 else largest_exact(x, at)
    return largest_fast_word(x, at) if digits == 1 else largest_exact_word(x, at)


@compile_cached(inline="always")
def write(x: np.ndarray, at: int, inverse: np.float32, abreast: int, digits: int, table: np.ndarray, to: int) -> None:
    """The tables of so many steps, as `_emit_tables`."""
    if abreast == 1:
        if digits == 1:
            write_fast(x, at, inverse, table, to)
        else:
            write_exact(x, at, inverse, table, to)
    elif digits == 1:
        write_fast_word(x, at, inverse, table, to)
    else:
        write_exact_word(x, at, inverse, table, to)
