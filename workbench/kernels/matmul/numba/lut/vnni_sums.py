"""Sums of inputs by signs on processors with AVX-512, VBMI and VNNI: four steps of 64 rows at a time, for one input or four.

The 32 signs of a row and four steps are a word; 16 rows fill a vector. The tables of four steps lie side by side in a vector too,
so that one instruction looks up half of every byte of 16 words (`vpermb`: two more bits of an index say which of the tables).
Another one multiplies all bytes by what a digit counts and adds the four of each word to 32 bits (`vpdpbusd`). Low digits of both
halves of a byte are added before that, as they fit a byte, and high ones are not: for 512 signs two look-ups and two additions,
where `pshufb_sums.py` takes two and four, and a shift. Half bytes made ready once serve four inputs.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    BYTES,
    FLOAT,
    I32,
    I64,
    Vector,
    build_splat,
    compute_address,
    declare_function,
    define_operation,
    fetch,
    prefetch,
)

INPUTS_AT_ONCE = 4  # inputs
WORD_BYTES = 4  # bytes and steps of a word
VECTOR = 64  # bytes of 16 words, and of four tables
STRIPE_VECTORS = 4  # vectors of the words of a stripe
STRIPE_BYTES = STRIPE_VECTORS * VECTOR
PREFETCH_BYTES = 4096  # bytes to ask the memory for in advance
SUMS = ir.VectorType(I32, 16)
TABLE_OFFSETS = ir.Constant(BYTES, [16 * (lane % WORD_BYTES) for lane in range(VECTOR)])  # where the table of a byte begins
COUNTS = (-1, -128)  # what low and high digits count; 128 is too much for 8 bits, so sums are taken negative

SumsOfOne = Vector("SumsOfOne", ir.ArrayType(SUMS, STRIPE_VECTORS))
SumsOfFour = Vector("SumsOfFour", ir.ArrayType(SUMS, STRIPE_VECTORS * INPUTS_AT_ONCE))


def add(b: Any, sums: Any, signs: Any, at: Any, table: Any, to: Any, apart: Any, digits: int) -> Any:
    """Sums with those of a word of each row of a stripe, for all inputs; the tables of two inputs are `apart` bytes apart."""
    look_up = declare_function(b, "llvm.x86.avx512.permvar.qi.512", BYTES, [BYTES, BYTES])
    dot = declare_function(b, "llvm.x86.avx512.vpdpbusd.512", SUMS, [SUMS] * 3)
    halves = []
    for part in range(STRIPE_VECTORS):
        signs_here = fetch(b, signs, b.add(at, I64(VECTOR * part)), BYTES)
        both = b.and_(signs_here, build_splat(BYTES, 15)), b.lshr(signs_here, build_splat(BYTES, 4))
        halves.append([b.or_(half, TABLE_OFFSETS) for half in both])
    for i in range(sums.type.count // STRIPE_VECTORS):
        for digit in range(digits):
            address = b.add(b.add(to, b.mul(apart, I64(i))), I64(2 * VECTOR * digit))
            tables = fetch(b, table, address, BYTES), fetch(b, table, b.add(address, I64(VECTOR)), BYTES)
            for part in range(STRIPE_VECTORS):
                looked_up = [b.call(look_up, pair) for pair in zip(tables, halves[part], strict=True)]
                number, count = STRIPE_VECTORS * i + part, b.bitcast(build_splat(BYTES, COUNTS[digit]), SUMS)
                total = b.extract_value(sums, number)
                for bytes_ in looked_up if digit else [b.add(*looked_up)]:
                    total = b.call(dot, [total, b.bitcast(bytes_, SUMS), count])
                sums = b.insert_value(sums, total, number)
    return sums


def _double_sums(b: Any, sums: Any) -> Any:
    """2 · sums."""
    for number in range(sums.type.count):
        one = b.extract_value(sums, number)
        sums = b.insert_value(sums, b.add(one, one), number)
    return sums


def write(b: Any, data: Any, sums: Any) -> None:
    """−sums as floats, 64 rows of each input."""
    kind = ir.VectorType(FLOAT, SUMS.count)
    for number in range(sums.type.count):
        positive = b.sitofp(b.neg(b.extract_value(sums, number)), kind)
        b.store(positive, compute_address(b, data, I64(SUMS.count * number), kind), align=1)


def _make_zero_sums(inputs: int) -> ir.Constant:
    """Sums of nothing."""
    return ir.Constant(ir.ArrayType(SUMS, STRIPE_VECTORS * inputs), [build_splat(SUMS, 0)] * (STRIPE_VECTORS * inputs))


none_of_one = define_operation("none_of_one", SumsOfOne, lambda _: _make_zero_sums(1))
none_of_four = define_operation("none_of_four", SumsOfFour, lambda _: _make_zero_sums(INPUTS_AT_ONCE))
fast_of_one = define_operation(
    "fast_of_one", SumsOfOne, lambda b, v, signs, at, table, to: add(b, v, signs, at, table, to, I64(0), 1)
)
exact_of_one = define_operation(
    "exact_of_one", SumsOfOne, lambda b, v, signs, at, table, to: add(b, v, signs, at, table, to, I64(0), 2)
)
fast_of_four = define_operation(
    "fast_of_four", SumsOfFour, lambda b, v, signs, at, table, to, apart: add(b, v, signs, at, table, to, apart, 1)
)
exact_of_four = define_operation(
    "exact_of_four", SumsOfFour, lambda b, v, signs, at, table, to, apart: add(b, v, signs, at, table, to, apart, 2)
)
twice_one = define_operation("twice_one", SumsOfOne, _double_sums)
twice_four = define_operation("twice_four", SumsOfFour, _double_sums)
write_sums = define_operation("write_sums", types.void, write)


@compile_cached
def _prefetch_words(signs: np.ndarray, at: int) -> None:
    """Ask the memory for words in advance."""
    for line in range(0, STRIPE_BYTES, VECTOR):
        prefetch(signs, at + PREFETCH_BYTES + line)


@compile_cached
def sum_one_input(
    signs: np.ndarray,
    at: int,
    plane_bytes: int,
    planes: int,
    table: np.ndarray,
    to: int,
    steps: int,
    digits: int,
    sums: np.ndarray,
) -> None:
    """Write the sums of a stripe over some steps of planes, each of which counts half the one before, to `sums [64]`."""
    collected = none_of_one()
    for plane in range(planes):
        collected = twice_one(collected)
        offset, tables = at + plane * plane_bytes, to
        for _ in range(steps // WORD_BYTES):
            _prefetch_words(signs, offset)
            if digits == 1:
                collected = fast_of_one(collected, signs, offset, table, tables)
            else:
                collected = exact_of_one(collected, signs, offset, table, tables)
            offset, tables = offset + STRIPE_BYTES, tables + 2 * VECTOR * digits
    write_sums(sums, collected)


@compile_cached
def sum_four_inputs(
    signs: np.ndarray,
    at: int,
    plane_bytes: int,
    planes: int,
    table: np.ndarray,
    to: int,
    apart: int,
    steps: int,
    digits: int,
    sums: np.ndarray,
) -> None:
    """The same for four inputs, whose tables are `apart` bytes apart, to `sums [4 · 64]`."""
    collected = none_of_four()
    for plane in range(planes):
        collected = twice_four(collected)
        offset, tables = at + plane * plane_bytes, to
        for _ in range(steps // WORD_BYTES):
            _prefetch_words(signs, offset)
            if digits == 1:
                collected = fast_of_four(collected, signs, offset, table, tables, apart)
            else:
                collected = exact_of_four(collected, signs, offset, table, tables, apart)
            offset, tables = offset + STRIPE_BYTES, tables + 2 * VECTOR * digits
    write_sums(sums, collected)
