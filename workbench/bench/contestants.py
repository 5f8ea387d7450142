"""The contestants of a benchmark: torch matrices of four types, and random matrices in packed formats.

Random matrices are as fast as learned ones: nothing here depends on values. "exact" and "fast" are the two precisions of sums.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.errors import KernelError
from workbench.kernels import formats
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.matmul import dispatch
from workbench.kernels.packing import tritpack
from workbench.kernels.packing.packed import Packed
from workbench.registry import describe_unknown

BASELINE = {"cpu": "torch-fp32", "cuda": "torch-bf16"}  # by device
TORCH = (
    "torch-fp32",
    "torch-bf16",
    "torch-int8",
    "torch-int4",
)  # what one could use instead: the fastest of them
ONLY_CPU = ("torch-int8", "torch-int4", "signs-fast", "vectors", "vectors-indices", "trellis-path")
LAYER = "this layer"
GROUP = 128  # columns of a group in W2 and W4
INT4_GROUPS = (128, 64, 32)  # that torch's 4-bit product knows
INT4_ROWS = 16  # rows that it packs together


@dataclass(frozen=True)
class Ready:
    """A matrix ready to multiply: float32 `[n, cols]` to `[n, rows]`; the bytes that a product reads, and its decoded weights."""

    run: Callable[[Tensor], Tensor]
    bytes: int
    decode: Callable[[], Tensor]

    def copy(self) -> "Ready":
        """The same in other memory; what a function has closed over is shared."""
        return replace(self, run=copy.deepcopy(self.run))


def _make_torch_matrix(rows: int, cols: int, kind: torch.dtype) -> Ready:
    """A matrix of torch in float32 or bfloat16."""
    weight = torch.randn(rows, cols).to(kind)
    return Ready(lambda x: torch.nn.functional.linear(x.to(kind), weight), weight.nbytes, lambda: weight.to(torch.float64))


def _make_torch_int8(rows: int, cols: int) -> Ready:
    """torch's dynamic int8: weights and, at each call, inputs are rounded to 8 bits; the error counts the inputs' rounding."""
    weight = torch.randn(rows, cols)
    scale = float(weight.abs().max() / 127)
    with warnings.catch_warnings():
        # its tensors are to be removed from torch one day, but it is what int8 on a CPU means today
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_tensor(weight, scale, 0, torch.qint8)
        prepacked = torch.ops.quantized.linear_prepack(rounded, None)
        values = rounded.dequantize()
    return Ready(lambda x: torch.ops.quantized.linear_dynamic(x, prepacked), rows * cols, values.double)


def _make_torch_int4(rows: int, cols: int) -> Ready:
    """torch's 4-bit weights: codes in groups of columns with a scale and an offset, and inputs in bfloat16, its fastest."""
    span = next(group for group in INT4_GROUPS if cols % group == 0)
    codes = torch.randint(0, 16, (rows, cols), dtype=torch.int32)
    scales = torch.stack([torch.rand(cols // span, rows) + 0.5, torch.randn(cols // span, rows)], -1).bfloat16()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)

    def decode() -> Tensor:
        scale, offset = (scales[..., i].mT.repeat_interleave(span, 1).double() for i in (0, 1))
        return (codes - 8) * scale + offset

    def run(x: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), packed, span, scales)

    return Ready(run, packed.nbytes + scales.nbytes, decode)


def has_torch_int4(rows: int, cols: int) -> bool:
    """Whether this torch multiplies a matrix of this shape in 4 bits."""
    is_there = hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")
    return is_there and rows % INT4_ROWS == 0 and any(cols % group == 0 for group in INT4_GROUPS)


def _prepare_packed(tree: Packed, mode: Mode) -> Ready:
    """A packed matrix on the backend that runs it, which must not be the reference."""
    backend, refused = dispatch.choose(tree, 1)
    if backend.name == "reference":
        raise KernelError(f"no compiled backend runs format {tree.format!r} here: {'; '.join(refused.values())}.")
    product = backend.prepare(tree, mode)
    return Ready(product, product.bytes, lambda: formats.decode(tree).double())


def prepare_layer(tree: Packed) -> Ready:
    """A layer's own matrix on the backend that runs it, which may be plain torch."""
    product = dispatch.choose(tree, 1)[0].prepare(tree, Mode())
    product(torch.zeros(1, tree.cols))  # plain torch decodes at the first call
    return Ready(product, product.bytes, lambda: formats.decode(tree).double())


def _generate_signs(rows: int, cols: int, planes: int) -> Packed:
    """Random sign planes with a scale for each row and plane."""
    tensors = {"signs": _generate_bits(planes * rows * cols), "scale": _generate_scales(planes, rows, 1)}
    return Packed("planes", rows, cols, tensors, {"planes": planes, "span": cols})


def _generate_trits(rows: int, cols: int) -> Packed:
    """Random trits with a scale for each row."""
    tensors = {"trits": tritpack.pack(torch.randint(-1, 2, (rows * cols,))), "scale": _generate_scales(1, rows, 1)}
    return Packed("ternary", rows, cols, tensors, {"planes": 1, "span": cols})


def _generate_codes(rows: int, cols: int, bits: int) -> Packed:
    """Random codes on a grid with a scale and zero for each group."""
    span = GROUP if cols % GROUP == 0 else cols
    groups = cols // span
    tensors = {
        "codes": _generate_bits(rows * cols * bits),
        "scale": _generate_scales(rows, groups),
        "zero": _generate_bits(rows * groups * bits),
    }
    return Packed("uniform", rows, cols, tensors, {"bits": bits, "span": span})


def _generate_codebook(rows: int, cols: int, length: int, entries: int) -> Packed:
    """Random indices into a random binary codebook; entries is a power of two."""
    count = rows * -(-cols // length)
    tensors = {
        "index": _generate_bits(count * (entries.bit_length() - 1)),
        "codebook": _generate_bits(entries * length),
        "scale": _generate_scales(rows, 1),
    }
    return Packed("binary-codebook", rows, cols, tensors, {"length": length, "entries": entries, "span": cols})


def _generate_vectors(rows: int, cols: int, length: int, entries: int) -> Packed:
    """Random indices into a random codebook of numbers; entries is a power of two."""
    coded = _generate_codebook(rows, cols, length, entries)
    return Packed("vector-codebook", rows, cols, {**coded.tensors, "codebook": torch.randn(entries, length).half()}, coded.facts)


def _generate_trellis(rows: int, cols: int, bits: int, length: int) -> Packed:
    """A random path of so many bits for every step of columns, with states of 12 bits."""
    tensors = {"path": _generate_bits(rows * -(-cols // length) * bits), "scale": _generate_scales(rows, 1)}
    return Packed("trellis", rows, cols, tensors, {"bits": bits, "length": length, "state": 12, "span": cols})


def _generate_bits(count: int) -> Tensor:
    """A random bit stream."""
    return torch.randint(0, 256, (-(-count // 8),), dtype=torch.uint8)


def _generate_scales(*shape: int) -> Tensor:
    """Random positive scales."""
    return (torch.rand(shape) + 0.5).half()


CONTESTANTS: dict[str, Callable[[int, int], Ready]] = {
    "torch-fp32": lambda rows, cols: _make_torch_matrix(rows, cols, torch.float32),
    "torch-bf16": lambda rows, cols: _make_torch_matrix(rows, cols, torch.bfloat16),
    "torch-int8": _make_torch_int8,
    "torch-int4": _make_torch_int4,
    "signs": lambda rows, cols: _prepare_packed(_generate_signs(rows, cols, 1), Mode()),
    "signs-fast": lambda rows, cols: _prepare_packed(_generate_signs(rows, cols, 1), Mode(precision="fast")),
    "ternary": lambda rows, cols: _prepare_packed(_generate_trits(rows, cols), Mode()),
    "two-planes": lambda rows, cols: _prepare_packed(_generate_signs(rows, cols, 2), Mode()),
    "codebook-512": lambda rows, cols: _prepare_packed(_generate_codebook(rows, cols, 14, 512), Mode()),
    "codebook": lambda rows, cols: _prepare_packed(_generate_codebook(rows, cols, 16, 4096), Mode()),
    "codebook-indices": lambda rows, cols: _prepare_packed(_generate_codebook(rows, cols, 16, 4096), Mode(cache="none")),
    "vectors": lambda rows, cols: _prepare_packed(_generate_vectors(rows, cols, 10, 256), Mode()),
    "vectors-indices": lambda rows, cols: _prepare_packed(_generate_vectors(rows, cols, 10, 256), Mode(cache="none")),
    "trellis-path": lambda rows, cols: _prepare_packed(_generate_trellis(rows, cols, 4, 5), Mode(cache="none")),
    "w2-g128": lambda rows, cols: _prepare_packed(_generate_codes(rows, cols, 2), Mode()),
    "w4-g128": lambda rows, cols: _prepare_packed(_generate_codes(rows, cols, 4), Mode()),
}


def list_contestants(device: str, shape: tuple[int, int] | None = None) -> list[str]:
    """The contestants on a device, for a matrix of this `shape` where it is given."""
    names = [name for name in CONTESTANTS if device == "cpu" or name not in ONLY_CPU]
    return [name for name in names if name != "torch-int4" or shape is None or has_torch_int4(*shape)]


def check_name(name: str, device: str) -> None:
    """KernelError with the list for a contestant that does not exist on a device."""
    if name not in list_contestants(device):
        raise KernelError(describe_unknown("bench format", name, list_contestants(device)))


def make(name: str, rows: int, cols: int, device: str = "cpu") -> Ready:
    """A contestant by name; an unknown name is answered with the list."""
    check_name(name, device)
    if name == "torch-int4" and not has_torch_int4(rows, cols):
        groups = ", ".join(map(str, INT4_GROUPS))
        raise KernelError(
            f"torch {torch.__version__} does not multiply a matrix of {rows} × {cols} in 4 bits; use rows that are a multiple of "
            f"{INT4_ROWS} and columns that are one of {groups}, or leave torch-int4 out."
        )
    with torch.device(device):
        return CONTESTANTS[name](rows, cols)
