"""The location of each tensor in a checkpoint, by the conversion rules of transformers.

Since transformers 5 a module's tensors need not be the checkpoint's: they are renamed, stacked, concatenated, split and permuted
when a model is loaded (`transformers.conversion_mapping`). This applies the same rules to one tensor at a time, and to one expert
of a stack where the checkpoint stores experts one by one.
"""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.exchange.reading.integer_codes import Codes
from workbench.models.checkpoint import Checkpoint, TensorEntry
from workbench.models.experts import StackLayout, find_stacks, iterate_expert_names
from workbench.models.lora import Adapter


@dataclass(frozen=True)
class Source:
    """What a tensor is made of: the checkpoint's `tensors`, by the pattern of `rule` that each matches.

    Without a rule it is the only tensor there, unchanged. `target` is the name that the rule was found under.
    """

    target: str
    tensors: Mapping[str, tuple[str, ...]]
    rule: Any = None

    @property
    def first(self) -> str:
        """The first tensor of the checkpoint."""
        return self.parts[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """All tensors of the checkpoint that it is made of."""
        return tuple(name for names in self.tensors.values() for name in names)


@dataclass(frozen=True)
class Slice:
    """One expert's matrix of a stacked parameter."""

    stack: str
    layout: StackLayout
    expert: int


class TensorMap:
    """The tensors of `module` (as transformers builds it, on the meta device) and their sources in `checkpoint`.

    Names are those of the module with its experts split (`split_experts`): a stacked parameter appears as its experts' weights.
    `missing` are parameters without a source, tied ones excepted; `unused` are tensors of the checkpoint that the module ignores.
    Raises ModelError where a tensor has another shape than the module says.
    """

    def __init__(self, module: nn.Module, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.module = checkpoint, module
        self.adapter: Adapter | None = None
        self.stacks = find_stacks(module)
        self._state: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
        self.tied: dict[str, str] = dict(getattr(module, "all_tied_weights_keys", None) or {})
        self._sources: dict[str, Source] = {}
        self.unused = self._find_sources()
        self.slices = {
            name: Slice(stack, layout, number)
            for stack, layout in self.stacks.items()
            for name, number in iterate_expert_names(stack, layout)
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any byte of the files, those of an adapter too."""
        return self.checkpoint.fingerprint if self.adapter is None else combine_fingerprints(self.checkpoint, self.adapter)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All tensors of the module with its experts split: parameters and persistent buffers."""
        stored_names: list[str] = []
        for name in self._state:
            stored_names += [new for new, _ in iterate_expert_names(name, self.stacks[name])] if name in self.stacks else [name]
        return tuple(stored_names)

    @property
    def stacked_names(self) -> tuple[str, ...]:
        """All tensors of the module as transformers builds it, its experts in stacks."""
        return tuple(self._state)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Parameters that neither the checkpoint nor a tied parameter gives a value."""
        present = set(self._sources)
        present |= {name for name, source in self.tied.items() if source in self._sources}
        present |= {source for name, source in self.tied.items() if name in self._sources}
        return tuple(name for name, tensor in self._state.items() if name not in present and isinstance(tensor, nn.Parameter))

    def holds(self, name: str) -> bool:
        """Whether the checkpoint has a value for this name."""
        return (self.slices[name].stack if name in self.slices else name) in self._sources

    def equal(self, tied: str, source: str) -> bool:
        """Whether two tied tensors have one value: only one of them is stored, or both are and do not differ."""
        return not (self.holds(tied) and self.holds(source)) or torch.equal(self.read(tied), self.read(source))

    def converts(self, name: str) -> bool:
        """Whether a tensor is made from others of the checkpoint, or decoded, rather than lying there as it is."""
        source = self._sources[self.slices[name].stack if name in self.slices else name]
        transposed = name in self.slices and self.slices[name].layout.transposed
        adapted = self.adapter is not None and name.removesuffix(".weight") in self.adapter.layers
        return adapted or transposed or source.rule is not None or any(self._entry(part).coded_as for part in source.parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as the module holds it; nothing is read for it."""
        if name in self.slices:
            layout = self.slices[name].layout
            return layout.rows, layout.cols
        return tuple(self._state[name].shape)

    def dtype(self, name: str) -> str:
        """The type in which a tensor is stored, or the format that another program quantized it to."""
        stack = self.slices[name].stack if name in self.slices else name
        entry = self._entry(self._sources[stack].first)
        return entry.coded_as or entry.dtype

    def stored_bits(self, name: str) -> float:
        """Bits that are stored for each number of a tensor; what is made of several has their mean."""
        parts = [self._entry(part) for part in self._sources[self.slices[name].stack if name in self.slices else name].parts]
        return 8 * sum(part.stored_bytes for part in parts) / sum(prod(part.shape) for part in parts)

    def decoded_bytes(self, name: str) -> float:
        """Bytes of a tensor as it is read, in the type of its values."""
        parts = [self._entry(part) for part in self._sources[self.slices[name].stack if name in self.slices else name].parts]
        return prod(self.shape(name)) * sum(part.decoded_bytes for part in parts) / sum(prod(part.shape) for part in parts)

    def codes(self, name: str) -> Codes | str:
        """The codes of a tensor that another program quantized, or the reason why there are none that are stored here."""
        if self.adapter is not None and name.removesuffix(".weight") in self.adapter.layers:
            return "an adapter is merged into it"
        if name in self.slices or self._sources[name].rule is not None:
            return "it is made of several tensors of the file"
        return self.checkpoint.codes(self._sources[name].first)

    def _entry(self, tensor: str) -> TensorEntry:
        return self.checkpoint.entries[tensor]

    def file(self, name: str) -> Path:
        """The file that a tensor, or its first part, is read from."""
        stack = self.slices[name].stack if name in self.slices else name
        return self.checkpoint.entries[self._sources[stack].first].file

    def read(self, name: str) -> Tensor:
        """One tensor as the module holds it, in its stored dtype; nothing else is read, of experts stored one by one too.

        Where the layer has a part of `adapter`, that is added to it.
        """
        stored = self._read_stored(name)
        layer = name.removesuffix(".weight")
        if self.adapter is None or layer == name or layer not in self.adapter.layers:
            return stored
        delta = self.adapter.compute_delta(layer)
        return (stored.float() + (delta.T if self.is_transposed(layer) else delta)).to(stored.dtype)

    def is_transposed(self, layer: str) -> bool:
        """Whether the module multiplies with the layer's parameter as `[cols, rows]` (GPT-2's Conv1D)."""
        return type(self.module.get_submodule(layer)).__name__ == "Conv1D"

    def _read_stored(self, name: str) -> Tensor:
        if name in self.slices:
            return self._read_expert(self.slices[name])
        source = self._source(name)
        if source.rule is None:
            return self.checkpoint.read(source.first)
        return self._convert(source, self.checkpoint.read)[name]

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise ModelError(
                f"{self.checkpoint.folder} has no weight {name!r}, which its config.json asks for; it is incomplete."
            )
        return self._sources[name]

    def _read_expert(self, part: Slice) -> Tensor:
        source = self._source(part.stack)
        if source.rule is None and not part.layout.flat:
            return part.layout.orient(self.checkpoint.read_slice(source.first, part.expert))
        if source.rule is not None and (single := self._single_expert(source, part)) is not None:
            return part.layout.orient(single)
        stack = self.read(part.stack)
        return part.layout.select(stack, part.expert).clone()

    def _single_expert(self, source: Source, part: Slice) -> Tensor | None:
        """The expert's matrix as stored in the stack, made from its own tensors alone; None where they are not apart."""
        if type(source.rule.operations[0]).__name__ != "MergeModulelist":
            return None
        if any(len(names) != part.layout.experts for names in source.tensors.values()):
            return None
        tensors = {pattern: (names[part.expert],) for pattern, names in source.tensors.items()}
        return self._convert(Source(source.target, tensors, source.rule), self.checkpoint.read)[part.stack][0]

    def _find_sources(self) -> tuple[str, ...]:
        """Note every tensor's source under the module's names and check its shape; what the module has no use for is returned."""
        groups, rules, unused = self._group_tensors()
        for target, tensors in groups.items():
            source = Source(target, {pattern: tuple(names) for pattern, names in tensors.items()}, rules.get(target))
            converted = {target: self._empty(source.first)} if source.rule is None else self._convert(source, self._empty)
            for name, tensor in converted.items():
                self._check_shape(name, tensor, source)
                self._sources[name] = source
        return unused

    def _group_tensors(self) -> tuple[dict[str, dict[str, list[str]]], dict[str, Any], tuple[str, ...]]:
        """The checkpoint's tensors by target and pattern, the targets' rules, and tensors without a target."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

        transforms = get_model_conversion_mapping(cast(Any, self.module))
        renamings = [rule for rule in transforms if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in transforms if isinstance(rule, WeightConverter)]
        by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
        prefix: Any = getattr(self.module, "base_model_prefix", "")
        groups: dict[str, dict[str, list[str]]] = {}
        rules: dict[str, Any] = {}
        unused: list[str] = []
        for name in sorted(self.checkpoint.entries, key=dot_natural_key):
            target, pattern = rename_source_key(name, renamings, converters, prefix, self._state)
            if target not in self._state and name in self._state:
                target, pattern = name, None  # a checkpoint that is named as the module already
            if target not in self._state:
                unused.append(name)
                continue
            if pattern is not None:
                rules.setdefault(target, by_pattern[pattern])
            groups.setdefault(target, {}).setdefault(pattern or name, []).append(name)
        return groups, rules, tuple(unused)

    def _convert(self, source: Source, read: Any) -> dict[str, Tensor]:
        """A rule applied to what `read` gives for each of its tensors: the module's tensors by name."""
        rule = deepcopy(source.rule)
        for pattern, names in source.tensors.items():
            for name in names:
                rule.add_tensor(source.target, name, pattern, read(name))
        try:
            converted = rule.convert(source.target, model=self.module, config=getattr(self.module, "config", None))
        except Exception as error:
            sources_text = f"{source.first!r} of {sum(map(len, source.tensors.values()))} tensors"
            raise ModelError(
                f"{self.checkpoint.folder}: {sources_text} cannot be made into {source.target!r}: {error}"
            ) from error
        return {name: tensor[0] if isinstance(tensor, list) else tensor for name, tensor in converted.items()}

    def _empty(self, name: str) -> Tensor:
        """A tensor's shape and type without its memory."""
        entry = self.checkpoint.entries[name]
        return torch.empty(entry.shape, dtype=getattr(torch, entry.dtype, torch.float32), device="meta")

    def _check_shape(self, name: str, stored: Tensor, source: Source) -> None:
        """Raise ModelError where the files and config.json do not belong together."""
        if name in self._state and stored.shape != self._state[name].shape:
            shapes = f"{list(stored.shape)}, but config.json says {list(self._state[name].shape)}"
            file = self.checkpoint.entries[source.first].file
            raise ModelError(f"{file} stores {source.first!r} as {shapes}; the two files do not belong together.")


def combine_fingerprints(checkpoint: Checkpoint, adapter: Adapter) -> str:
    """16 hex digits that stand for a base model and its adapter."""
    return hashlib.sha256(f"{checkpoint.fingerprint} {adapter.fingerprint}".encode()).hexdigest()[:16]
