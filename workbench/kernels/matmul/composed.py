"""Matmuls composed of matmuls, on any device: sums, after an input transform, or through thin factors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import KernelError
from workbench.kernels.kernel_mode import Product, check_columns
from workbench.kernels.packing.packed import Packed


@dataclass(frozen=True)
class LowRank:
    """left · right, never multiplied out."""

    left: Tensor
    right: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both factors, in float32."""
        return self.left.nbytes + self.right.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """(x rightᵀ) leftᵀ."""
        return (x @ self.right.mT.to(x.dtype)) @ self.left.mT.to(x.dtype)


@dataclass(frozen=True)
class Sum:
    """Products added up; none at all is zero."""

    parts: tuple[Product, ...]
    rows: int

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def __call__(self, x: Tensor) -> Tensor:
        """One part after the other."""
        if not self.parts:
            return torch.zeros(len(x), self.rows, dtype=x.dtype, device=x.device)
        y = self.parts[0](x)
        for part in self.parts[1:]:
            y = y + part(x)
        return y


@dataclass(frozen=True)
class After:
    """A product with changed inputs."""

    change: Callable[[Tensor], Tensor]
    product: Product
    bytes_held: int

    @property
    def bytes(self) -> int:
        """Bytes of the product and of what changes its inputs."""
        return self.bytes_held + self.product.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """First the change, then the product."""
        return self.product(self.change(x))


@dataclass(frozen=True)
class Shaped:
    """A product of contiguous `x [n, cols]`, for any shape and type; what is none of its `types` becomes the first of them."""

    product: Product
    rows: int
    cols: int
    backend: str
    types: tuple[torch.dtype, ...] = (torch.float32,)

    @property
    def bytes(self) -> int:
        """Bytes held beside the stored tensors."""
        return self.product.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ in the type of `x`. KernelError where a gradient is asked for, or inputs have another width."""
        check_columns(x, self.cols)
        if x.requires_grad:
            if torch.is_grad_enabled():
                raise KernelError(
                    f"backend {self.backend!r} has no gradients; use torch.inference_mode(), or WORKBENCH_KERNELS=reference."
                )
            x = x.detach()
        # a small layer takes a few microseconds, and each of these calls one or half of one: none that is not needed
        shape = x.shape
        flat = x if len(shape) == 2 else x.reshape(-1, self.cols)
        if flat.dtype not in self.types:
            flat = flat.to(self.types[0])
        if not flat.is_contiguous():
            flat = flat.contiguous()
        y = self.product(flat)
        y = y if len(shape) == 2 else y.view(*shape[:-1], self.rows)
        return y if y.dtype == x.dtype else y.to(x.dtype)


def compose_product(packed: Packed, prepare: Callable[[Packed], Product]) -> Product | None:
    """The product with a format that consists of others, each of which `prepare` makes one of; None where it does not."""
    if packed.format == "sum":
        return Sum(tuple(prepare(child) for child in packed.children), packed.rows)
    if packed.format == "zero":
        return Sum((), packed.rows)
    if packed.format == "low-rank":
        return _prepare_low_rank(packed)
    if packed.format == "binary-factors":
        right, left = _split_binary_factors(packed)
        inner = prepare(right)
        return After(inner, prepare(left), inner.bytes)
    return None


def _prepare_low_rank(packed: Packed) -> LowRank:
    """The product with format `low-rank`."""
    return LowRank(packed.tensors["left"].to(torch.float32), packed.tensors["right"].to(torch.float32))


def _split_binary_factors(packed: Packed) -> tuple[Packed, Packed]:
    """The two matrices of signs of `binary-factors` as planes: first the right one, then the left one."""
    rank, stored = packed.facts["rank"], packed.tensors
    middle = stored["middle"] if "middle" in stored else torch.ones_like(stored["row"][:1]).expand(rank)
    outer = {"signs": stored["right"], "scale": middle.reshape(1, rank, 1), "column_scale": stored["column"][None]}
    inner = {"signs": stored["left"], "scale": stored["row"].view(1, packed.rows, 1)}
    return (
        Packed("planes", rank, packed.cols, outer, {"planes": 1, "span": packed.cols}),
        Packed("planes", packed.rows, rank, inner, {"planes": 1, "span": rank}),
    )
