"""Products made of products, on any device: added up, after a change of the input, through a thin middle."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.mode import Product
from workbench.kernels.packed import Packed


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
    held: int

    @property
    def bytes(self) -> int:
        """Bytes of the product and of what changes its inputs."""
        return self.held + self.product.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """First the change, then the product."""
        return self.product(self.change(x))


def low_rank(packed: Packed) -> LowRank:
    """The product with format `low-rank`."""
    return LowRank(packed.tensors["left"].to(torch.float32), packed.tensors["right"].to(torch.float32))


def factors(packed: Packed) -> tuple[Packed, Packed]:
    """The two matrices of signs of `binary-factors` as planes: first the right one, then the left one."""
    rank, stored = packed.facts["rank"], packed.tensors
    middle = stored["middle"] if "middle" in stored else torch.ones_like(stored["row"][:1]).expand(rank)
    outer = {"signs": stored["right"], "scale": middle.reshape(1, rank, 1), "column_scale": stored["column"][None]}
    inner = {"signs": stored["left"], "scale": stored["row"].view(1, packed.rows, 1)}
    return (
        Packed("planes", rank, packed.cols, outer, {"planes": 1, "span": packed.cols}),
        Packed("planes", packed.rows, rank, inner, {"planes": 1, "span": rank}),
    )
