"""PackedLinear: a linear layer with a stored matrix instead of a weight."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ShapeError
from workbench.kernels.forced_backend import read_forced_backend
from workbench.kernels.formats.format import decode
from workbench.kernels.kernel_mode import Cache, Mode, Precision, Product
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.dispatch import Explanation
from workbench.kernels.matmul.mapped_pages import release_pages
from workbench.kernels.matmul.packed_matrix import PackedMatrix
from workbench.kernels.matmul.packed_weight import PackedWeight
from workbench.kernels.packing.packed import Packed

MANY_TOKENS = 256  # of a prompt: backends may multiply with so many inputs in another way than with one


class PackedLinear(PackedMatrix):
    """y = x Wᵀ + bias for a stored `[out_features, in_features]` matrix; takes the place of nn.Linear and GPT-2's Conv1D.

    `cache` and `precision` are those of `Mode`. A backend prepares the matrix at its first use here and keeps that: the packed
    codes in its own order (numba), or with cache "decoded" the float32 matrix (reference). `resident_bytes` counts the stored
    tensors and what was prepared. `weight` is a `PackedWeight`: whoever multiplies with it gets this layer's product.
    """

    def __init__(
        self, packed: Packed, bias: Tensor | None = None, *, cache: Cache = "decoded", precision: Precision = "exact"
    ) -> None:
        super().__init__()
        self.out_features, self.in_features, self.mode = packed.rows, packed.cols, Mode(cache, precision)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.hold(packed)
        self._chosen: dict[tuple[str | None, int], Product] = {}  # by what was forced and the number of inputs

    @classmethod
    def instead_of(cls, module: nn.Module, packed: Packed, **mode: Any) -> "PackedLinear":
        """The stored form of a linear module, with that module's bias; `cache` and `precision` as above.

        ShapeError where the module multiplies with a matrix of another shape.
        """
        rows, cols = read_matrix_shape(module)
        if (rows, cols) != (packed.rows, packed.cols):
            raise ShapeError(
                f"a stored matrix is {packed.rows:,} × {packed.cols:,}, but {rows:,} × {cols:,} in the model; use its own."
            )
        return cls(packed, module._parameters.get("bias"), **mode)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]` in the type of `x`."""
        y = self.multiply(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def multiply(self, x: Tensor) -> Tensor:
        """The same without the bias."""
        case = (read_forced_backend(), dispatch.count_inputs(x, self.in_features))
        product = self._chosen.get(case)
        if product is None:
            product = self._chosen[case] = self.prepare(case[1])
        return product(x)

    def __getattr__(self, name: str) -> Any:
        if name != "weight" or "_names" not in vars(self):  # a stored tensor that is called so is on its way in
            return super().__getattr__(name)
        device = next(self.buffers(), torch.empty(0)).device
        return PackedWeight(self.shape, device, lambda: decode(self.packed), self.multiply)

    def prepare(self, batch: int) -> Product:
        """What the backend that is chosen for so many inputs has prepared, or prepares now."""
        packed = self.packed
        backend, _ = dispatch.choose(packed, batch)
        if backend.name not in self._prepared:
            product = self._prepared[backend.name] = backend.prepare(packed, self.mode)
            stored = [tensor for _, node in packed.walk() for tensor in node.tensors.values()]
            if 2 * product.bytes > sum(tensor.nbytes for tensor in stored):  # it holds the codes in an order of its own
                release_pages(stored)
        return self._prepared[backend.name]

    def replace_product(self, backend: str, product: Product) -> None:
        """Run on another product with the same matrix from now on, which may share memory with other layers."""
        self._prepared[backend] = product
        self._chosen.clear()

    def explain(self, batch: int = 1) -> Explanation:
        """Which backend runs this layer, with what the cache does to it."""
        explanation = dispatch.explain(self.packed, batch)
        if explanation.backend != "reference":
            return explanation
        size = 4 * self.out_features * self.in_features
        how = {"decoded": f"caches the decoded matrix, {size:,} bytes", "none": "decodes at every call and caches nothing"}
        return replace(explanation, reason=f"{explanation.reason}; {how[self.mode.cache]} (cache={self.mode.cache!r})")

    def extra_repr(self) -> str:
        """Sizes and format for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self._tree.format!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        self._chosen.clear()
        super()._apply(fn, recurse)
        return self


def read_matrix_shape(module: nn.Module) -> tuple[int, int]:
    """`(rows, cols)` of the matrix of a linear module: nn.Linear, a packed one, or Conv1D, whose weight is `[cols, rows]`."""
    if isinstance(module, nn.Linear | PackedLinear):
        return module.out_features, module.in_features
    cols, rows = module.get_parameter("weight").shape
    return rows, cols


def warm_up(module: nn.Module, on_progress: Callable[[float, float], None] = lambda *_: None) -> None:
    """Run every packed layer once, so that kernels are compiled and matrices prepared before somebody waits for them.

    Compiling takes a minute or two the first time on a machine and is kept on disk; `on_progress` is told `(done, layers)`.
    """
    layers = [part for part in module.modules() if isinstance(part, PackedLinear)]
    compiled_shapes = set()
    for done, layer in enumerate(layers):
        on_progress(done, len(layers))
        forms = tuple(node.format for _, node in layer._tree.walk())
        for inputs in (1,) if forms in compiled_shapes else (1, MANY_TOKENS):
            layer(torch.zeros(inputs, layer.in_features, device=next(layer.buffers(), torch.empty(0)).device))
        compiled_shapes.add(forms)
    on_progress(1, 1)
