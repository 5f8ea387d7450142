"""SIMD vectors inside compiled loops: 64 bytes, or 32 floats, at a time, for any register width of the CPU.

LLVM splits them into as many registers as they need (one with AVX-512, two with AVX2). Only the look-up of bytes by bytes has no
common form: it is the processor's own instruction where there is one and a loop of loads elsewhere, with the same result.

NUMBA_CPU_NAME=generic makes numba compile for any processor, and this module follows it: that is how the loop is tested.
"""

import inspect
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()
QUARTER = ir.VectorType(I8, 16)  # what one look-up can choose from
HALF_BYTES = ir.VectorType(I8, 32)
BYTES = ir.VectorType(I8, 64)
WORD_VECTOR = ir.VectorType(I16, 32)  # the same 64 bytes, two at a time
FLOATS = ir.VectorType(FLOAT, 32)
INTEGERS = ir.VectorType(I32, 32)
CODE_VECTOR = ir.VectorType(I16, 64)


class Vector(types.Type):
    """The numba type of a vector; `llvm` is what it is in machine code."""

    def __init__(self, name: str, llvm: ir.VectorType) -> None:
        super().__init__(name=name)
        self.llvm = llvm


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is kept in registers as it is."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


Bytes, Floats, Codes = Vector("Bytes", BYTES), Vector("Floats", FLOATS), Vector("Codes", CODE_VECTOR)


def list_cpu_features() -> set[str]:
    """What the processor that numba compiles for can do, as LLVM names it, for example {"avx2", "fma"}."""
    config: Any = numba.config
    if config.CPU_FEATURES is not None:
        return {flag[1:] for flag in config.CPU_FEATURES.split(",") if flag.startswith("+")}
    if config.CPU_NAME not in (None, "", "host"):
        return set()
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


def _choose_instruction() -> str:
    """How bytes are looked up here: "avx512vnni" (with `dots.py`), "avx512bw", "avx2", or "portable", without an instruction."""
    if {"avx512bw", "avx512vbmi", "avx512vnni"} <= list_cpu_features():
        return "avx512vnni"
    return next((name for name in ("avx512bw", "avx2") if name in list_cpu_features()), "portable")


INSTRUCTION = _choose_instruction()
DOTS = INSTRUCTION == "avx512vnni"  # whether four bytes are looked up in four tables, and added up, by one instruction each
HALVES = "f16c" in list_cpu_features()  # whether the processor itself widens floats of 16 bits


def define_operation(name: str, result: types.Type, emit: Callable[..., Any]) -> Any:
    """A function for compiled code; `emit(builder, *values)` writes its instructions, and array arguments are their addresses."""

    def define(_typing: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pairs = zip(signature.args, values, strict=True)
            plain = [
                context.make_array(kind)(context, builder, v).data if isinstance(kind, types.Array) else v for kind, v in pairs
            ]
            written = emit(builder, *plain)
            return context.get_dummy_value() if result is types.void else written

        return result(*map(_convert_argument_type, arguments)), generate

    define.__name__ = name
    define.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]  # numba counts the arguments
    return intrinsic(define)


def _convert_argument_type(kind: types.Type) -> types.Type:
    """What an argument is turned into: places are integers, other numbers are float32; arrays and vectors stay as they are."""
    if isinstance(kind, types.Integer):
        return types.intp
    return types.float32 if isinstance(kind, types.Float) else kind


def _locate_elements(_typing: Any, array: Any) -> Any:
    """Where an array's elements begin."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return context.make_array(array)(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), generate


data: Any = intrinsic(_locate_elements)


def compute_address(builder: Any, data: Any, at: Any, kind: ir.VectorType) -> Any:
    """The address of element `at` of an array, as that of a vector."""
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def fetch(builder: Any, data: Any, at: Any, kind: ir.VectorType) -> Any:
    """A vector from anywhere in an array; it need not be aligned."""
    return builder.load(compute_address(builder, data, at, kind), align=1)


EIGHTS = ir.Constant(WORD_VECTOR, [8] * 32)


def build_splat(kind: ir.VectorType, value: float) -> ir.Constant:
    """A constant vector of equal elements."""
    return ir.Constant(kind, [value] * kind.count)


def _build_shuffle_mask(count: int, total: int) -> ir.Constant:
    """Indices 0 … of − 1 over and over, `count` of them, for a shuffle."""
    return ir.Constant(ir.VectorType(I32, count), [lane % total for lane in range(count)])


def declare_function(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """One of LLVM's own functions."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _emit_broadcast(builder: Any, data: Any, at: Any) -> Any:
    """16 bytes, four times over."""
    quarter = fetch(builder, data, at, QUARTER)
    return builder.shuffle_vector(quarter, quarter, _build_shuffle_mask(64, 16))


def _emit_fill(builder: Any, value: Any) -> Any:
    """One float in all lanes."""
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, one, _build_shuffle_mask(32, 1))


def _emit_halves(builder: Any, data: Any, at: Any) -> Any:
    """32 floats of 16 bits, given as uint16, widened exactly: by the processor, or by moving exponent and fraction into place,
    × 2^112, and the sign."""
    if HALVES:
        return builder.fpext(fetch(builder, data, at, ir.VectorType(ir.HalfType(), 32)), FLOATS)
    half = builder.zext(fetch(builder, data, at, WORD_VECTOR), INTEGERS)
    size = builder.shl(builder.and_(half, build_splat(INTEGERS, 0x7FFF)), build_splat(INTEGERS, 13))
    size = builder.fmul(builder.bitcast(size, FLOATS), build_splat(FLOATS, 2.0**112))
    sign = builder.shl(builder.and_(half, build_splat(INTEGERS, 0x8000)), build_splat(INTEGERS, 16))
    return builder.bitcast(builder.or_(builder.bitcast(size, INTEGERS), sign), FLOATS)


def _emit_look_up(builder: Any, table: Any, index: Any) -> Any:
    """table[index] for every byte; the table holds the same 16 entries in each quarter, and indices are below 16."""
    if INSTRUCTION.startswith("avx512"):
        return builder.call(declare_function(builder, "llvm.x86.avx512.pshuf.b.512", BYTES, [BYTES, BYTES]), [table, index])
    if INSTRUCTION == "avx2":
        return _emit_avx2_look_up(builder, table, index)
    memory = cgutils.alloca_once(builder, BYTES)
    builder.store(table, memory)
    entries, values = builder.bitcast(memory, I8.as_pointer()), ir.Constant(BYTES, ir.Undefined)
    for lane in range(64):
        offset = builder.zext(builder.extract_element(index, I32(lane)), I64)
        values = builder.insert_element(values, builder.load(builder.gep(entries, [offset])), I32(lane))
    return values


def _emit_avx2_look_up(builder: Any, table: Any, index: Any) -> Any:
    """The look-up with AVX2, 32 bytes at a time."""
    shuffle = declare_function(builder, "llvm.x86.avx2.pshuf.b", HALF_BYTES, [HALF_BYTES, HALF_BYTES])
    low, high = ([part * 32 + lane for lane in range(32)] for part in (0, 1))
    pick = [ir.Constant(ir.VectorType(I32, 32), part) for part in (low, high)]
    split = [[builder.shuffle_vector(v, v, part) for v in (table, index)] for part in pick]
    parts = [builder.call(shuffle, pair) for pair in split]
    return builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, 64), low + high))


def _emit_multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x · y + z, in one instruction where there is one."""
    return builder.call(declare_function(builder, "llvm.fmuladd.v32f32", FLOATS, [FLOATS] * 3), [x, y, z])


def emit_unpack_field(builder: Any, data: Any, at: Any, bits: int) -> Any:
    """64 numbers of 1, 2, 4 or 8 bits: lane i of the n first is in the lowest bits of byte i, lane n + i in the next ones."""
    packed = fetch(builder, data, at, ir.VectorType(I8, 8 * bits))
    spread = builder.shuffle_vector(packed, packed, _build_shuffle_mask(64, 8 * bits))
    shifts = ir.Constant(CODE_VECTOR, [bits * (lane // (8 * bits)) for lane in range(64)])
    return builder.and_(builder.lshr(builder.zext(spread, CODE_VECTOR), shifts), build_splat(CODE_VECTOR, (1 << bits) - 1))


def _emit_shift(builder: Any, act: str, codes: Any, by: Any) -> Any:
    """Every number shifted by the same amount."""
    amount = builder.insert_element(ir.Constant(CODE_VECTOR, ir.Undefined), builder.trunc(by, I16), I32(0))
    return getattr(builder, act)(codes, builder.shuffle_vector(amount, amount, _build_shuffle_mask(64, 1)))


def _emit_chosen(builder: Any, numbers: Any, places: Any, at: Any) -> Any:
    """64 of some numbers of 16 bits, by their places, which stand side by side; those are read four at a time."""
    entries, values = builder.bitcast(numbers, I16.as_pointer()), ir.Constant(CODE_VECTOR, ir.Undefined)
    for first in range(0, CODE_VECTOR.count, 4):
        four = builder.load(builder.bitcast(builder.gep(places, [builder.add(at, I64(first))]), I64.as_pointer()), align=1)
        for lane in range(4):
            offset = builder.and_(builder.lshr(four, I64(16 * lane)), I64(0xFFFF))
            values = builder.insert_element(values, builder.load(builder.gep(entries, [offset])), I32(first + lane))
    return values


def _emit_store_pairs(builder: Any, data: Any, at: Any, first: Any, second: Any) -> None:
    """64 numbers, each followed by one of 64 others, as bytes."""
    order = ir.Constant(ir.VectorType(I32, 128), [lane // 2 + 64 * (lane % 2) for lane in range(128)])
    pairs = builder.shuffle_vector(first, second, order)
    builder.store(pairs, compute_address(builder, data, at, pairs.type), align=1)


def _emit_store_words(builder: Any, data: Any, at: Any, v: Any) -> None:
    """32 whole numbers below 2^16, as uint16."""
    words = builder.trunc(builder.fptoui(v, INTEGERS), WORD_VECTOR)
    builder.store(words, compute_address(builder, data, at, WORD_VECTOR), align=1)


def _emit_prefetch(builder: Any, data: Any, at: Any) -> Any:
    """Ask for a cache line that will be read soon; an address past the end does no harm."""
    pointer = builder.bitcast(builder.gep(data, [at]), I8.as_pointer())
    function = declare_function(builder, "llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    builder.call(function, [pointer, I32(0), I32(3), I32(1)])


def _emit_word_operation(builder: Any, act: str, x: Any, y: Any) -> Any:
    """An operation on the bytes as 16-bit integers; results wrap around."""
    return builder.bitcast(getattr(builder, act)(builder.bitcast(x, WORD_VECTOR), builder.bitcast(y, WORD_VECTOR)), BYTES)


load = define_operation("load", Bytes, lambda b, data, at: fetch(b, data, at, BYTES))
load_long = define_operation(
    "load_long", types.int64, lambda b, data, at: b.load(b.bitcast(b.gep(data, [at]), I64.as_pointer()), align=1)
)
store = define_operation("store", types.void, lambda b, data, at, v: b.store(v, compute_address(b, data, at, BYTES), align=1))
broadcast = define_operation("broadcast", Bytes, _emit_broadcast)
look_up = define_operation("look_up", Bytes, _emit_look_up)
prefetch = define_operation("prefetch", types.void, _emit_prefetch)
no_bytes = define_operation("no_bytes", Bytes, lambda _: build_splat(BYTES, 0))
low_nibbles = define_operation("low_nibbles", Bytes, lambda b, v: b.and_(v, build_splat(BYTES, 15)))
high_nibbles = define_operation("high_nibbles", Bytes, lambda b, v: b.lshr(v, build_splat(BYTES, 4)))
add_bytes = define_operation("add_bytes", Bytes, lambda b, x, y: b.add(x, y))
add_words = define_operation("add_words", Bytes, lambda b, x, y: _emit_word_operation(b, "add", x, y))
odd_bytes = define_operation("odd_bytes", Bytes, lambda b, v: _emit_word_operation(b, "lshr", v, EIGHTS))
without_odd = define_operation(
    "without_odd", Bytes, lambda b, v, odd: _emit_word_operation(b, "sub", v, _emit_word_operation(b, "shl", odd, EIGHTS))
)  # sums of even bytes, where v holds sums of even + 256 · odd bytes
words_to_floats = define_operation(
    "words_to_floats", Floats, lambda b, v: b.uitofp(b.zext(b.bitcast(v, WORD_VECTOR), INTEGERS), FLOATS)
)
load_floats = define_operation("load_floats", Floats, lambda b, data, at: fetch(b, data, at, FLOATS))
load_halves = define_operation("load_halves", Floats, _emit_halves)
load_small = define_operation(
    "load_small", Floats, lambda b, data, at: b.uitofp(b.zext(fetch(b, data, at, HALF_BYTES), INTEGERS), FLOATS)
)
store_floats = define_operation(
    "store_floats", types.void, lambda b, data, at, v: b.store(v, compute_address(b, data, at, FLOATS), align=1)
)
fill = define_operation("fill", Floats, _emit_fill)
add_floats = define_operation("add_floats", Floats, lambda b, x, y: b.fadd(x, y))
subtract = define_operation("subtract", Floats, lambda b, x, y: b.fsub(x, y))
multiply = define_operation("multiply", Floats, lambda b, x, y: b.fmul(x, y))
multiply_add = define_operation("multiply_add", Floats, _emit_multiply_add)
choose_less = define_operation(
    "choose_less", Floats, lambda b, x, y, first, second: b.select(b.fcmp_ordered("<", x, y), first, second)
)  # of `first` where x < y, else of `second`
store_words = define_operation("store_words", types.void, _emit_store_words)
no_codes = define_operation("no_codes", Codes, lambda _: build_splat(CODE_VECTOR, 0))
field_1 = define_operation("field_1", Codes, lambda b, data, at: emit_unpack_field(b, data, at, 1))
field_2 = define_operation("field_2", Codes, lambda b, data, at: emit_unpack_field(b, data, at, 2))
field_4 = define_operation("field_4", Codes, lambda b, data, at: emit_unpack_field(b, data, at, 4))
field_8 = define_operation("field_8", Codes, lambda b, data, at: emit_unpack_field(b, data, at, 8))
chosen = define_operation("chosen", Codes, _emit_chosen)
load_codes = define_operation("load_codes", Codes, lambda b, data, at: fetch(b, data, at, CODE_VECTOR))
store_codes = define_operation(
    "store_codes", types.void, lambda b, data, at, v: b.store(v, compute_address(b, data, at, CODE_VECTOR), align=1)
)
store_low_bytes = define_operation(
    "store_low_bytes", types.void, lambda b, data, at, v: b.store(b.trunc(v, BYTES), compute_address(b, data, at, BYTES), align=1)
)
store_pairs = define_operation("store_pairs", types.void, _emit_store_pairs)
merge = define_operation("merge", Codes, lambda b, codes, others, by: b.or_(codes, _emit_shift(b, "shl", others, by)))
drop = define_operation("drop", Codes, lambda b, codes, by: _emit_shift(b, "lshr", codes, by))
