"""PackedMatrix: a module with a stored matrix instead of a weight."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from workbench.kernels.formats.format import decode
from workbench.kernels.packing.packed import Packed


class PackedMatrix(nn.Module):
    """A stored matrix `[rows, cols]`: what packed layers and packed embeddings have in common.

    The stored tensors are buffers named `<path><tensor>` with dots as underscores. They move with `.to(device)` and keep their
    types: a scale rounded to another type would be another matrix. `_prepared` holds what was made of them to run, each with its
    `bytes`.

    `weight` is the float32 matrix for families that multiply with it themselves or ask for its type (Mamba): it is decoded
    every time its values are needed, and never kept.
    """

    _prepared: dict[str, Any]

    def hold(self, packed: Packed) -> None:
        """Keep the tensors of a tree."""
        self._tree, self._prepared = strip(packed), {}
        for path, node in packed.walk():
            for name, tensor in node.tensors.items():
                self.register_buffer(_format_buffer_name(path, name), tensor)
        self._names = {path: tuple(node.tensors) for path, node in packed.walk()}

    def __getattr__(self, name: str) -> Any:
        # not a property: transformers puts a placeholder of this name in its place while it fills a model; that a stored tensor
        # is called so too does not matter
        return decode(self.packed) if name == "weight" else super().__getattr__(name)

    @property
    def stored_names(self) -> list[str]:
        """The buffers that hold what is stored."""
        return [_format_buffer_name(path, name) for path, names in self._names.items() for name in names]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._tree.rows, self._tree.cols

    @property
    def packed(self) -> Packed:
        """The stored tree with the tensors this module holds now."""
        return self._fill(self._tree, "")

    @property
    def resident_bytes(self) -> int:
        """Bytes held now: stored tensors, bias and what was prepared; of a mapped file fewer may be in memory."""
        return count_resident_bytes([self])

    def _fill(self, tree: Packed, path: str) -> Packed:
        tensors = {name: cast(Tensor, self._buffers[_format_buffer_name(path, name)]) for name in self._names[path]}
        children = tuple(self._fill(child, f"{path}{index}.") for index, child in enumerate(tree.children))
        return replace(tree, tensors=tensors, children=children)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedMatrix":
        stored = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name in self.stored_names:
            if name in stored:  # set aside while transformers fills a model
                self._buffers[name] = stored[name].to(cast(Tensor, self._buffers[name]).device)
        self._prepared.clear()
        return self


def count_resident_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes in memory of parameters, buffers and what was prepared; memory that several modules share counts once."""
    sizes: dict[int, int] = {}
    for module in modules:
        for part in module.modules():
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    sizes[tensor.data_ptr()] = tensor.nbytes
            for prepared in part._prepared.values() if isinstance(part, PackedMatrix) else ():
                sizes[id(prepared)] = prepared.bytes
    return sum(sizes.values())


def _format_buffer_name(path: str, tensor: str) -> str:
    """The buffer of one stored tensor; module names cannot hold dots."""
    return f"{path}{tensor}".replace(".", "_")


def strip(packed: Packed) -> Packed:
    """The tree without its tensors."""
    return replace(packed, tensors={}, children=tuple(strip(child) for child in packed.children))
