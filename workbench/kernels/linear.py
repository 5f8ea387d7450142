"""PackedLinear: the layer of a network that holds a stored matrix instead of a weight, and multiplies with it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.errors import ShapeError
from workbench.kernels import dispatch
from workbench.kernels.dispatch import Explanation
from workbench.kernels.forced import forced
from workbench.kernels.mode import Cache, Mode, Precision, Product
from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import decode

MANY_TOKENS = 256  # of a prompt: backends may multiply with so many inputs in another way than with one


class PackedLinear(nn.Module):
    """y = x Wᵀ + bias for a stored `[out_features, in_features]` matrix; takes the place of nn.Linear and GPT-2's Conv1D.

    The stored tensors are buffers named `<path><tensor>` with dots as underscores. They move with `.to(device)` and keep their
    types: a scale rounded to another type would be another matrix.

    `cache` and `precision` are those of `Mode`. A backend prepares the matrix at its first use here and keeps that: the packed
    codes in its own order (numba), or with cache "decoded" the float32 matrix (reference). `resident_bytes` counts the stored
    tensors and what was prepared.

    `weight` is the float32 matrix `[out_features, in_features]` for families that multiply with it themselves or ask for its
    type (Mamba): it is decoded every time it is read, and never kept.
    """

    def __init__(
        self, packed: Packed, bias: Tensor | None = None, *, cache: Cache = "decoded", precision: Precision = "exact"
    ) -> None:
        super().__init__()
        self.out_features, self.in_features, self.mode = packed.rows, packed.cols, Mode(cache, precision)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._tree = strip(packed)
        self._prepared: dict[str, Product] = {}  # by backend
        self._chosen: dict[tuple[str | None, int], Product] = {}  # by what was forced and the number of inputs
        for path, node in packed.walk():
            for name, tensor in node.tensors.items():
                self.register_buffer(buffer_name(path, name), tensor)
        self._names = {path: tuple(node.tensors) for path, node in packed.walk()}

    @classmethod
    def instead_of(cls, module: nn.Module, packed: Packed, **mode: Any) -> "PackedLinear":
        """The stored form of a linear module, with that module's bias; `cache` and `precision` as above.

        ShapeError where the module multiplies with a matrix of another shape.
        """
        rows, cols = matrix_shape(module)
        if (rows, cols) != (packed.rows, packed.cols):
            raise ShapeError(
                f"a stored matrix is {packed.rows:,} × {packed.cols:,}, but {rows:,} × {cols:,} in the model; take its own."
            )
        return cls(packed, module._parameters.get("bias"), **mode)

    def __getattr__(self, name: str) -> Any:
        # not a property: transformers puts a placeholder of this name in its place while it fills a model; that a stored tensor
        # is called so too does not matter
        return decode(self.packed) if name == "weight" else super().__getattr__(name)

    @property
    def packed(self) -> Packed:
        """The stored tree with the tensors this module holds now."""
        return self._fill(self._tree, "")

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]` in the type of `x`."""
        case = (forced(), dispatch.batch_of(x, self.in_features))
        product = self._chosen.get(case)
        if product is None:
            product = self._chosen[case] = self._product(case[1])
        y = product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _product(self, batch: int) -> Product:
        """What the backend that is chosen for so many inputs has prepared, or prepares now."""
        packed = self.packed
        backend, _ = dispatch.choose(packed, batch)
        if backend.name not in self._prepared:
            self._prepared[backend.name] = backend.prepare(packed, self.mode)
        return self._prepared[backend.name]

    def explain(self, batch: int = 1) -> Explanation:
        """Which backend runs this layer, with what the cache does to it."""
        explanation = dispatch.explain(self.packed, batch)
        if explanation.backend != "reference":
            return explanation
        size = 4 * self.out_features * self.in_features
        how = {"decoded": f"keeps the decoded matrix, {size:,} bytes", "none": "decodes at every call and keeps nothing"}
        return replace(explanation, reason=f"{explanation.reason}; {how[self.mode.cache]} (cache={self.mode.cache!r})")

    @property
    def resident_bytes(self) -> int:
        """Bytes in memory now: stored tensors, bias and what backends have prepared."""
        return resident_bytes([self])

    def extra_repr(self) -> str:
        """Sizes and format for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self._tree.format!r}"

    def _fill(self, tree: Packed, path: str) -> Packed:
        tensors = {name: cast(Tensor, self._buffers[buffer_name(path, name)]) for name in self._names[path]}
        children = tuple(self._fill(child, f"{path}{index}.") for index, child in enumerate(tree.children))
        return replace(tree, tensors=tensors, children=children)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        stored = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, tensor in stored.items():
            self._buffers[name] = tensor.to(cast(Tensor, self._buffers[name]).device)
        self._prepared.clear()
        self._chosen.clear()
        return self


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """`(rows, cols)` of the matrix of a linear module: nn.Linear, a packed one, or Conv1D, whose weight is `[cols, rows]`."""
    if isinstance(module, nn.Linear | PackedLinear):
        return module.out_features, module.in_features
    cols, rows = module.get_parameter("weight").shape
    return rows, cols


def resident_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes in memory of parameters, buffers and what backends have prepared; memory that several modules share counts once."""
    sizes: dict[int, int] = {}
    for module in modules:
        for part in module.modules():
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    sizes[tensor.data_ptr()] = tensor.nbytes
            for product in part._prepared.values() if isinstance(part, PackedLinear) else ():
                sizes[id(product)] = product.bytes
    return sum(sizes.values())


def warm_up(module: nn.Module, on_progress: Callable[[float, float], None] = lambda *_: None) -> None:
    """Run every packed layer once, so that kernels are compiled and matrices prepared before somebody waits for them.

    Compiling takes a minute or two the first time on a machine and is kept on disk; `on_progress` is told `(done, layers)`.
    """
    layers = [part for part in module.modules() if isinstance(part, PackedLinear)]
    seen = set()
    for done, layer in enumerate(layers):
        on_progress(done, len(layers))
        forms = tuple(node.format for _, node in layer._tree.walk())
        for inputs in (1,) if forms in seen else (1, MANY_TOKENS):
            layer(torch.zeros(inputs, layer.in_features, device=next(layer.buffers(), torch.empty(0)).device))
        seen.add(forms)
    on_progress(1, 1)


def buffer_name(path: str, tensor: str) -> str:
    """The buffer of one stored tensor; module names cannot hold dots."""
    return f"{path}{tensor}".replace(".", "_")


def strip(packed: Packed) -> Packed:
    """The tree without its tensors."""
    return replace(packed, tensors={}, children=tuple(strip(child) for child in packed.children))
