"""PackedLinear: the layer of a network that holds a stored matrix instead of a weight, and multiplies with it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from workbench.kernels import dispatch, reference
from workbench.kernels.dispatch import Explanation
from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import find
from workbench.kernels.reference.rounding import before_rounding
from workbench.kernels.reference.transforms import Transformed

Cache = Literal["decoded", "none"]


class PackedLinear(nn.Module):
    """y = x Wᵀ + bias for a stored `[out_features, in_features]` matrix; takes the place of nn.Linear and GPT-2's Conv1D.

    The stored tensors are buffers named `<path><tensor>` with dots as underscores. They move with `.to(device)` and keep their
    types: a scale rounded to another type would be another matrix.

    `cache` matters where the reference backend runs. "decoded" (the default) keeps the float32 matrix after its first use:
    fast, 4 bytes a weight more. "none" decodes at every call and holds only what is stored. `resident_bytes` counts both.
    """

    def __init__(self, packed: Packed, bias: Tensor | None = None, *, cache: Cache = "decoded") -> None:
        super().__init__()
        self.out_features, self.in_features, self.cache = packed.rows, packed.cols, cache
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._tree = strip(packed)
        self._decoded: Tensor | None = None
        for path, node in packed.walk():
            for name, tensor in node.tensors.items():
                self.register_buffer(buffer_name(path, name), tensor)
        self._names = {path: tuple(node.tensors) for path, node in packed.walk()}

    @classmethod
    def instead_of(cls, module: nn.Module, packed: Packed, *, cache: Cache = "decoded") -> "PackedLinear":
        """The stored form of a linear module, with that module's bias."""
        return cls(packed, module._parameters.get("bias"), cache=cache)

    @property
    def packed(self) -> Packed:
        """The stored tree with the tensors this module holds now."""
        return self._fill(self._tree, "")

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]` in the type of `x`."""
        packed = self.packed
        backend, _ = dispatch.choose(packed, x.numel() // max(1, x.shape[-1]))
        if backend.name != "reference" or self.cache == "none":
            return dispatch.linear(x, packed, self.bias)
        wrappers, held = before_rounding(packed)
        if self._decoded is None:
            self._decoded = reference.decode(held)
        for node in wrappers:  # without rounding the decoded matrix has undone them
            x = cast(type[Transformed], find(node)).input(x, node)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self._decoded.to(x.dtype), bias)

    def explain(self, batch: int = 1) -> Explanation:
        """Which backend runs this layer, with what the cache does to it."""
        explanation = dispatch.explain(self.packed, batch)
        if explanation.backend != "reference":
            return explanation
        size = 4 * self.out_features * self.in_features
        how = {"decoded": f"keeps the decoded matrix, {size:,} bytes", "none": "decodes at every call and keeps nothing"}
        return replace(explanation, reason=f"{explanation.reason}; {how[self.cache]} (cache={self.cache!r})")

    @property
    def resident_bytes(self) -> int:
        """Bytes in memory now: stored tensors, bias and, once it is there, the decoded matrix."""
        return resident_bytes([self])

    def extra_repr(self) -> str:
        """Sizes and format for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self._tree.format!r}"

    def _fill(self, tree: Packed, path: str) -> Packed:
        tensors = {name: self.get_buffer(buffer_name(path, name)) for name in self._names[path]}
        children = tuple(self._fill(child, f"{path}{index}.") for index, child in enumerate(tree.children))
        return replace(tree, tensors=tensors, children=children)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        stored = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, tensor in stored.items():
            self._buffers[name] = tensor.to(self.get_buffer(name).device)
        self._decoded = None
        return self


def resident_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes in memory of parameters, buffers and decoded matrices; memory that several modules share counts once."""
    sizes: dict[int, int] = {}
    for module in modules:
        for part in module.modules():
            held: list[Any] = [*part._parameters.values(), *part._buffers.values()]
            held.append(part._decoded if isinstance(part, PackedLinear) else None)
            for tensor in held:
                if tensor is not None:
                    sizes[tensor.data_ptr()] = tensor.nbytes
    return sum(sizes.values())


def buffer_name(path: str, tensor: str) -> str:
    """The buffer of one stored tensor; module names cannot hold dots."""
    return f"{path}{tensor}".replace(".", "_")


def strip(packed: Packed) -> Packed:
    """The tree without its tensors."""
    return replace(packed, tensors={}, children=tuple(strip(child) for child in packed.children))
