"""A safetensors checkpoint that another program quantized: its weights under the plain model's names, decoded one at a time."""

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import ModelError, WorkbenchWarning
from workbench.exchange.reading.coded_tensor import CodedTensor, Source, StoredTensor
from workbench.exchange.reading.integer_codes import Codes
from workbench.exchange.reading.methods import describe_rounded_inputs, find_coded
from workbench.models.checkpoint import Checkpoint, TensorEntry
from workbench.models.quantized_weights import INTEGERS

WEIGHT = ".weight"
BIAS = "bias"


class CodedCheckpoint(Checkpoint):
    """The tensors of `stored` with each coded weight in the place of its codes, scales and zero points.

    Raises ModelError where the method is not read, or the tensors do not fit each other.
    """

    def __init__(self, stored: Checkpoint, settings: Mapping[str, Any]) -> None:
        self.folder, self.files, self._stored = stored.folder, stored.files, stored
        tensors = {
            name: StoredTensor(entry.shape, INTEGERS.get(entry.dtype, entry.dtype)) for name, entry in stored.entries.items()
        }
        self._coded = {coded.name: coded for coded in find_coded(Source(str(stored.folder), settings, tensors, stored.read))}
        self.entries = dict(stored.entries)
        for coded in self._coded.values():
            parts = self._list_parts(coded)
            first = stored.entries[parts[0]]
            size = sum(stored.entries[part].decoded_bytes for part in parts)
            for part in parts:
                self.entries.pop(part, None)
            self.entries[coded.name] = TensorEntry(first.file, coded.shape, "float32", coded.format, size)

    def _list_parts(self, coded: CodedTensor) -> list[str]:
        """All that is stored for a weight: its parts, and whatever else stands in its module beside the bias."""
        parts = list(dict.fromkeys(coded.parts.values()))
        if coded.name.endswith(WEIGHT):
            owner = coded.name.removesuffix(WEIGHT)
            beside = (name for name in self._stored.entries if name.startswith(f"{owner}.") and name != f"{owner}.{BIAS}")
            parts += [name for name in beside if name not in parts]
        return parts

    def read(self, tensor: str) -> Tensor:
        """One tensor: decoded where it is coded, else in its stored dtype."""
        if tensor not in self._coded:
            return self._stored.read(tensor)
        coded = self._coded[tensor]
        return self._decode(coded, {role: self._stored.read(part) for role, part in coded.parts.items()}, coded.shape)

    def read_slice(self, tensor: str, index: int) -> Tensor:
        """One entry of a tensor's first dimension; of a stack of coded matrices only that one's codes are read."""
        if tensor not in self._coded:
            return self._stored.read_slice(tensor, index)
        coded = self._coded[tensor]
        if not coded.stacked:
            return self.read(tensor)[index]
        parts = {role: self._stored.read_slice(part, index) for role, part in coded.parts.items()}
        return self._decode(coded, parts, coded.shape[1:])

    def _decode(self, coded: CodedTensor, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """The values of codes; ModelError where codes or scales hold what no program writes."""
        try:
            values = coded.decode(parts)
        except (IndexError, RuntimeError) as error:  # a column's group, or a code, that does not exist
            raise ModelError(f"{self.folder}: {coded.name!r} cannot be decoded as {coded.format} ({error}).") from error
        if tuple(values.shape) != shape:
            raise ModelError(
                f"{self.folder}: {coded.name!r} is {list(values.shape)} when decoded as {coded.format}, not {list(shape)}; "
                f"its tensors do not belong together."
            )
        return values

    def codes(self, tensor: str) -> Codes | str:
        """See `Checkpoint`."""
        if tensor not in self._coded:
            return super().codes(tensor)
        coded = self._coded[tensor]
        return coded.split({role: self._stored.read(part) for role, part in coded.parts.items()})

    @cached_property
    def fingerprint(self) -> str:
        """That of the files."""
        return self._stored.fingerprint


def warn_of_rounded_inputs(folder: Path, settings: Mapping[str, Any]) -> None:
    """Warn where the model also rounds the inputs of its layers as it runs, which is not done here."""
    if kind := describe_rounded_inputs(settings):
        warnings.warn(
            f"{folder} also rounds the inputs of its layers to {kind} as it runs; here only its weights are decoded, and inputs "
            f"stay in float32: perplexity and texts are those of the weights alone.",
            WorkbenchWarning,
            stacklevel=3,
        )
