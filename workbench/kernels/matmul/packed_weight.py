"""PackedWeight: the weight attribute of a packed layer, for code that multiplies with it instead of calling the layer."""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map_only

MATMULS = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}
TRANSPOSES = {Tensor.t, torch.t, cast(Any, Tensor.T).__get__, cast(Any, Tensor.mT).__get__}
SWAPS = {Tensor.transpose, torch.transpose}
CASTS = {Tensor.float, Tensor.type, Tensor.to}
# what is known of the matrix without its values
ATTRIBUTES = ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_meta")
FACTS = {getattr(Tensor, name).__get__ for name in ATTRIBUTES}
FACTS |= {Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement, Tensor.element_size, Tensor.is_floating_point, Tensor.__len__}
FACTS |= {torch.is_floating_point, torch.numel}


class PackedWeight(Tensor):
    """The float32 matrix of a packed layer, which decodes itself only where its values are needed.

    `x Wᵀ`, written as `F.linear(x, w)`, `x @ w.T` or `w @ y`, is the layer's own product, with the rounding of its kernel.
    Whatever else is done with it happens to the decoded matrix: it is decoded once and lives as long as this object. A pass that
    needs gradients decodes too, since products have none.
    """

    _decode: Callable[[], Tensor]
    _product: Callable[[Tensor], Tensor]
    _is_transposed: bool
    _decoded: Tensor | None

    def __new__(
        cls,
        shape: Sequence[int],
        device: torch.device,
        decode: Callable[[], Tensor],
        product: Callable[[Tensor], Tensor],
        *,
        is_transposed: bool = False,
    ) -> Self:
        """A matrix that is not decoded yet.

        Args:
            shape: rows and columns of this matrix, `[cols, rows]` of the layer where `is_transposed`.
            device: where the layer's tensors are.
            decode: makes this matrix, float32.
            product: x Wᵀ with the layer's matrix, `[..., cols]` to `[..., rows]`, without its bias.
            is_transposed: whether this is the layer's matrix transposed.
        """
        weight = cast(Any, Tensor)._make_wrapper_subclass(cls, tuple(shape), dtype=torch.float32, device=device)
        weight._decode, weight._product, weight._is_transposed, weight._decoded = decode, product, is_transposed, None
        return weight

    def values(self) -> Tensor:
        """The decoded matrix."""
        if self._decoded is None:
            self._decoded = self._decode()
        return self._decoded

    def transposed(self) -> "PackedWeight":
        """The matrix with rows and columns exchanged, decoded together with this one."""
        return PackedWeight(
            self.shape[::-1],
            self.device,
            lambda: self.values().T,
            self._product,
            is_transposed=not self._is_transposed,
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Multiply with the packed matrix where that is what `func` does; else do it with the decoded one."""
        kwargs = kwargs or {}
        if func in FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        result = None if kwargs.keys() - {"bias"} else _try_packed_product(func, *args, **kwargs)
        return func(*_decode_arguments(args), **_decode_arguments(kwargs)) if result is None else result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """The same for what comes from compiled code, past `__torch_function__`: it gets the decoded matrix."""
        return func(*_decode_arguments(args), **_decode_arguments(kwargs or {}))


def _try_packed_product(func: Callable[..., Any], first: Any, *others: Any, bias: Tensor | None = None) -> Tensor | None:
    """What `func` makes of a packed weight among its arguments by the packed product alone, None where it needs the values."""
    if func in TRANSPOSES or (func in SWAPS and {dim % 2 for dim in others} == {0, 1}):
        return cast(PackedWeight, first).transposed()
    if func in CASTS and isinstance(first, PackedWeight) and all(kind is torch.float32 for kind in others):
        return first
    if func is functional.linear and others:
        y, bias = multiply(first, others[0]), others[1] if len(others) > 1 else bias
        return y if y is None or bias is None else y + bias
    if func in MATMULS and len(others) == 1:
        if isinstance(others[0], PackedWeight):
            return multiply(first, others[0].transposed())
        y = multiply(others[0].mT if others[0].ndim > 1 else others[0], first)
        return y if y is None or y.ndim == 1 else y.mT
    return None


def multiply(x: Any, weight: Any) -> Tensor | None:
    """x Wᵀ by the layer's own product, None where only the decoded matrix will do."""
    if not isinstance(weight, PackedWeight) or weight._is_transposed or not isinstance(x, Tensor) or isinstance(x, PackedWeight):
        return None
    fits = x.ndim > 0 and x.shape[-1] == weight.shape[1] and (x.dtype, x.device) == (weight.dtype, weight.device)
    return weight._product(x) if fits and not (torch.is_grad_enabled() and x.requires_grad) else None


def _decode_arguments(arguments: Any) -> Any:
    """Arguments of a function with the decoded matrix in the place of every packed weight."""
    return tree_map_only(PackedWeight, PackedWeight.values, arguments)
