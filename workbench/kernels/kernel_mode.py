"""Options for running a stored matrix: what is kept in memory, and the precision of sums."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from workbench.errors import KernelError

Cache = Literal["decoded", "none"]
Precision = Literal["exact", "fast"]


@dataclass(frozen=True)
class Mode:
    """How a stored matrix is run: `cache` trades memory for speed, `precision` exactness for speed.

    Args:
        cache: "decoded" keeps what was once decoded (reference: the float32 matrix; numba and cuda: the signs that codewords
            stand for, or their numbers in fp16), "none" decodes at every call.
        precision: "exact" sums with a relative error below 2e-4 (numba; others sum in float32), "fast" with one of about 1e-2, as
            8-bit activations have.

    Example:
        >>> import torch
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> backend, _ = wb.measures.choose_kernel(result.packed, batch=1)
        >>> product = backend.prepare(result.packed, wb.measures.KernelMode(cache="none"))
        >>> product(torch.ones(1, 768)).shape
        torch.Size([1, 256])
    """

    cache: Cache = "decoded"
    precision: Precision = "exact"


def check_columns(x: Tensor, cols: int) -> None:
    """KernelError where `x [..., cols]` is not as wide as the stored matrix: compiled loops would read past its end."""
    shape = x.shape
    if not shape or shape[-1] != cols:
        raise KernelError(f"inputs of shape {list(shape)} do not fit a matrix of {cols} columns; give [..., {cols}].")


class Product(Protocol):
    """A stored matrix made ready to multiply by one backend."""

    @property
    def bytes(self) -> int:
        """Bytes held now beside the stored tensors."""

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ: `[..., cols]` to `[..., rows]` in the type of `x`."""
