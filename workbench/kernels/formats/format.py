"""The interface of stored formats, and the two functions through which formats call each other: `decode` and `linear`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from workbench import registry
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import FactSpec, TensorSpec, declare_integer

Shape = tuple[int, int]


class Format:
    """How a matrix `[rows, cols]` is stored. Subclasses register under "format" and are used without an instance.

    `items` says why each tensor is stored; the ledger prints it. `paths` says that codes hang together down whole columns, so
    that one weight can change many of them. `maskable` says that it can store single weights of a matrix.

    `facts`, `tensors` and `parts` declare what a node must hold; `declared.find_fault` checks a tree against them before
    anything reads it. They are asked in this order, and each line is checked before the next one is asked for, so it may use it.
    """

    items: ClassVar[Mapping[str, str]]
    paths: ClassVar[bool] = False
    maskable: ClassVar[bool] = False
    children: ClassVar[tuple[int, int]] = (0, 0)  # the fewest and the most

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """Each fact's name and which values it may have."""
        yield from ()

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """Each tensor's name, type, shape and range; `mask` as in `decode`."""
        yield from ()

    @classmethod
    def parts(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[Shape, Tensor | None]]:
        """The shape `(rows, cols)` that each child must have, and the mask of the weights that it stores."""
        for _ in packed.children:
            yield (packed.rows, packed.cols), mask

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The stored matrix, float32 `[rows, cols]`.

        With a boolean `mask [rows, cols]` only codes at its true positions are stored; all other values are zero.
        """
        raise NotImplementedError

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """x Wᵀ: `[..., cols]` to `[..., rows]` in the type of `x`."""
        return torch.nn.functional.linear(x, decode(packed).to(x.dtype))

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The same form with the codes that come nearest to `target [rows, cols]`; scales, codebooks and maps stay.

        Forms without codes stay as they are, and those whose codes are `loose`. `target` in the basis of the codes; `mask` as in
        `decode`.
        """
        return packed

    @classmethod
    def loose(cls, packed: Packed, target: Tensor) -> dict[str, Tensor]:
        """Numbers with the stored signs, larger the more a flip takes from the nearness to `target [rows, cols]`, by tensor.

        Signs ±1 as float32 may stand in the place of these bit streams in `decode`, and get gradients. For forms whose nearest
        codes cannot be told weight by weight; none for all others.
        """
        return {}


def decode(packed: Packed, mask: Tensor | None = None) -> Tensor:
    """The matrix a tree stands for, float32 `[rows, cols]`, transforms undone: the effective weight in the model's basis."""
    return find(packed).decode(packed, mask)


def linear(x: Tensor, packed: Packed) -> Tensor:
    """x Wᵀ for a tree: `[..., cols]` to `[..., rows]` in the type of `x`; transforms are applied to the input."""
    return find(packed).linear(x, packed)


def recode_nearest(packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
    """A tree without transforms with the codes that come nearest to `target`, everything else as it is."""
    return find(packed).nearest(packed, target, mask)


def find(packed: Packed) -> type[Format]:
    """The format class of a node."""
    return cast(type[Format], registry.find("format", packed.format))


def unpack_codes(packed: Packed, name: str, width: int, mask: Tensor | None, planes: int = 1) -> Tensor:
    """The bit stream `name` as int32 `[planes, rows, cols]`; positions outside the mask hold 0."""
    shape = (planes, packed.rows, packed.cols)
    stream = packed.tensors[name]
    if mask is None:
        return bitpack.unpack(stream, width, planes * packed.rows * packed.cols).view(shape)
    full = torch.zeros(shape, dtype=torch.int32, device=stream.device)
    stored = bitpack.unpack(stream, width, planes * int(mask.sum()))
    full[mask.expand(shape)] = stored
    return full


def replace_codes(packed: Packed, name: str, codes: Tensor, width: int, mask: Tensor | None) -> Packed:
    """The node with another bit stream `name`, from codes `[..., rows, cols]` of which those outside the mask are left out."""
    kept_codes = codes if mask is None else codes[..., mask]
    return replace(packed, tensors={**packed.tensors, name: bitpack.pack(kept_codes, width)})


def declare_span_fact(packed: Packed) -> tuple[str, FactSpec]:
    """The fact `span`, columns of a group."""
    return "span", declare_integer(1, max(packed.cols, 1))


def count_weights(packed: Packed, mask: Tensor | None) -> int:
    """How many weights are stored: all of them, or those inside the mask."""
    return packed.rows * packed.cols if mask is None else int(mask.count_nonzero())


def count_groups(packed: Packed) -> int:
    """How many groups of fact `span` columns a row has."""
    return -(-packed.cols // packed.facts["span"])


def expand_groups(per_group: Tensor, span: int, cols: int) -> Tensor:
    """Widen `[..., groups]` to float32 `[..., cols]`: every group stands for `span` columns, the last one for the rest."""
    return per_group.to(torch.float32).repeat_interleave(span, -1)[..., :cols]


def mask_values(mask: Tensor | None, values: Tensor) -> Tensor:
    """`values` where the mask is true and zero elsewhere."""
    return values if mask is None else torch.where(mask, values, torch.zeros((), device=values.device))
