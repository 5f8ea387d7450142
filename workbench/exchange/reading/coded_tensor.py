"""A weight as another program stores it: codes, scales and zero points in tensors of their own, and how it is decoded."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading.integer_codes import Codes
from workbench.json_value import shorten_value


@dataclass(frozen=True)
class StoredTensor:
    """Shape and type of one tensor of a checkpoint."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CodedTensor:
    """A tensor that is decoded from others.

    `name` is that of the tensor in the model, `parts` are the checkpoint's tensors by their role, `decode` takes them by role and
    gives float32 values of `shape`. `format` is what it is called. Where `stacked`, one entry of the first dimension is decoded
    from that entry of each part. `split` gives its codes as whole numbers, or the reason why they are none that are stored here.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    parts: Mapping[str, str]
    decode: Callable[[Mapping[str, Tensor]], Tensor]
    stacked: bool = False
    split: Callable[[Mapping[str, Tensor]], Codes | str] = lambda _parts: "its values are on no regular grid"


@dataclass(frozen=True)
class Source:
    """What a method reads: the checkpoint's tensors by name, its settings, and `read`, which gives one small tensor.

    `where` is named in sentences.
    """

    where: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    read: Callable[[str], Tensor]

    def read_choice(self, name: str, allowed: Iterable[int], default: int | None = None) -> int:
        """A setting that is one of some whole numbers; ModelError for another."""
        value, numbers = self.settings.get(name, default), list(allowed)
        if type(value) is not int or value not in numbers:
            choices = " or ".join(map(str, numbers))
            raise self.describe(f"says {name} {shorten_value(value)}; it must be {choices}")
        return value

    def describe(self, what: str) -> ModelError:
        """The error that says something about this checkpoint."""
        return ModelError(f"{self.where} {what}.")

    def group(self, leaf: str) -> dict[str, dict[str, str]]:
        """For each module that has a tensor of this last name: all its tensors by their last names."""
        owners = {name.removesuffix(f".{leaf}"): {} for name in self.tensors if name.endswith(f".{leaf}")}  # type: dict[str, dict[str, str]]
        for name in self.tensors:
            owner, _, last = name.rpartition(".")
            if owner in owners:
                owners[owner][last] = name
        return owners

    def take(self, owner: str, parts: Mapping[str, str], needed: Iterable[str]) -> dict[str, str]:
        """The parts that a decoder needs; ModelError where one is missing."""
        missing = [leaf for leaf in needed if leaf not in parts]
        if missing:
            raise self.describe(f"lacks {f'{owner}.{missing[0]}'!r}, without which its codes are meaningless: it is incomplete")
        return {leaf: parts[leaf] for leaf in needed}

    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """ModelError where a tensor has another shape than its fellows say."""
        shape = self.tensors[name].shape
        if shape != expected:
            raise self.describe(f"stores {name!r} as {list(shape)}, but the tensors beside it say {list(expected)}")


def unpack_fields(words: Tensor, bits: int, count: int) -> Tensor:
    """Numbers of so many bits from a stream of bits, the lowest bits of the first word first.

    Args:
        words: uint8 or int32 `[rows, n]`; numbers may lie across the border of two words.
        bits: Bits of a number, 1 to 8.
        count: How many numbers a row has.

    Returns:
        int32 `[rows, count]`.

    Example:
        >>> import torch
        >>> from workbench.exchange.reading.coded_tensor import unpack_fields
        >>> unpack_fields(torch.tensor([[0x4321]], dtype=torch.int32), 4, 4)
        tensor([[1, 2, 3, 4]], dtype=torch.int32)
    """
    content = words.contiguous().view(torch.uint8).to(torch.int32)
    if bits == 8:
        return content[:, :count]
    if 8 % bits == 0:
        fields = content[:, :, None] >> torch.arange(0, 8, bits, dtype=torch.int32) & (1 << bits) - 1
        return fields.flatten(1)[:, :count]
    starts = torch.arange(count, dtype=torch.int32) * bits
    content = torch.nn.functional.pad(content, (0, 1))
    pair = content[:, starts // 8] | content[:, starts // 8 + 1] << 8
    return pair >> (starts % 8) & (1 << bits) - 1


def spread_groups(values: Tensor, cols: int) -> Tensor:
    """A value a group `[rows, groups]` as a value a weight `[rows, cols]`; groups are equally wide, the last may be cut off."""
    width = -(-cols // values.shape[1])
    return values.repeat_interleave(width, 1)[:, :cols]
