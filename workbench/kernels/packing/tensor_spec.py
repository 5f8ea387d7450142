"""Declarations of the facts and tensors of a format: types, shapes and ranges.

Compiled loops read what the facts promise and not one byte less, so a tree from a file is held against these first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack, tritpack
from workbench.nonfinite import count_nonfinite

FP16_ONLY = (torch.float16,)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRIT_BYTES = 3**tritpack.TRITS  # values of a byte that stand for five trits


@dataclass(frozen=True)
class FactSpec:
    """Which values of a fact are `allowed`, in words and as a test."""

    allowed: str
    fits: Callable[[Any], bool]
    optional: bool = False


def declare_integer(low: int, high: int) -> FactSpec:
    """An integer from `low` to `high`."""
    return FactSpec(f"an integer from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def declare_choice(*names: str) -> FactSpec:
    """One of these names."""
    return FactSpec(f"one of {', '.join(map(repr, names))}", lambda value: isinstance(value, str) and value in names)


def declare_flag() -> FactSpec:
    """True, False or absent."""
    return FactSpec("true or false", lambda value: isinstance(value, bool), optional=True)


def _accept_any_values(_tensor: Tensor) -> str | None:
    """Any values are allowed."""
    return None


@dataclass(frozen=True)
class TensorSpec:
    """One stored tensor: its possible types, its shape (None: any size) and, by `fault`, what is wrong with its values."""

    dtypes: tuple[torch.dtype, ...]
    shape: tuple[int | None, ...]
    fault: Callable[[Tensor], str | None] = _accept_any_values
    optional: bool = False

    def mismatch(self, tensor: Tensor) -> str | None:
        """How a tensor's type or shape differs, or else what is wrong with its values; None where nothing is."""
        fits = len(tensor.shape) == len(self.shape) and all(
            expected is None or size == expected for size, expected in zip(tensor.shape, self.shape, strict=True)
        )
        if tensor.dtype not in self.dtypes or not fits:
            shape = ", ".join("any" if size is None else f"{size:,}" for size in self.shape)
            return f"is {describe_tensor(tensor)} and must be {' or '.join(map(_format_dtype, self.dtypes))} [{shape}]"
        return self.fault(tensor)


def describe_tensor(tensor: Tensor) -> str:
    """Type and shape of a tensor, such as "uint8 [2,048]"."""
    return f"{_format_dtype(tensor.dtype)} [{', '.join(f'{size:,}' for size in tensor.shape)}]"


def _format_dtype(dtype: torch.dtype) -> str:
    """A type's name."""
    return str(dtype).removeprefix("torch.")


def declare_code_stream(count: int, width: int, values: int | None = None, *, optional: bool = False) -> TensorSpec:
    """`count` codes of `width` bits; below `values` where not every code stands for something."""

    def fault(stream: Tensor) -> str | None:
        largest = int(bitpack.unpack(stream, width, count).max())
        return None if values is None or largest < values else f"holds the code {largest:,} and must hold 0 to {values - 1:,}"

    checked = values is not None and values < 1 << width and count > 0
    return TensorSpec(
        (torch.uint8,), (bitpack.count_packed_bytes(count, width),), fault if checked else _accept_any_values, optional
    )


def declare_order_stream(count: int, width: int) -> TensorSpec:
    """The numbers from 0 to `count` − 1, each once, in any order."""

    def fault(stream: Tensor) -> str | None:
        numbers = bitpack.unpack(stream, width, count).to(torch.int64)
        if torch.equal(numbers.sort().values, torch.arange(count, device=numbers.device)):
            return None
        return f"must hold each number from 0 to {count - 1:,} once, and holds {len(numbers.unique()):,} different ones"

    return TensorSpec((torch.uint8,), (bitpack.count_packed_bytes(count, width),), fault)


def declare_trit_stream(count: int) -> TensorSpec:
    """`count` trits."""

    def fault(stream: Tensor) -> str | None:
        largest = int(stream.max()) if stream.numel() else 0
        return None if largest < TRIT_BYTES else f"holds the byte {largest} and must hold 0 to {TRIT_BYTES - 1}, five trits each"

    return TensorSpec((torch.uint8,), (tritpack.count_packed_bytes(count),), fault)


def declare_finite_numbers(
    *shape: int | None, dtypes: tuple[torch.dtype, ...] = FP16_ONLY, optional: bool = False, zero: bool = True
) -> TensorSpec:
    """Finite numbers, fp16 unless said otherwise; none of them is 0 unless `zero` is allowed."""

    def fault(tensor: Tensor) -> str | None:
        # what is finite in float64 need not be in float32, in which everything is computed
        if bad := count_nonfinite(tensor.float() if tensor.dtype == torch.float64 else tensor):
            return f"holds {bad:,} of {tensor.numel():,} values that are NaN or infinite"
        if not zero and (bad := int((tensor == 0).sum())):
            return f"holds {bad:,} of {tensor.numel():,} values that are 0, by which inputs would be divided"
        return None

    return TensorSpec(dtypes, shape, fault, optional)
