"""A model in GGUF files: its tensors under the names of transformers, decoded one at a time; see `gguf_config`.

The experts of a mixture lie in tensors `[experts, rows, cols]`, gates apart from ups, which transformers has in one.
"""

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.exchange.reading import gguf_types
from workbench.exchange.reading.gguf_codes import take_gguf_codes
from workbench.exchange.reading.gguf_file import GgufFile
from workbench.exchange.reading.gguf_parts import read_gguf_parts
from workbench.exchange.reading.integer_codes import Codes, arrange_rows
from workbench.models import architecture
from workbench.models.checkpoint import Checkpoint, TensorEntry, find_tokenizer_files
from workbench.models.experts import find_stacks
from workbench.models.gguf_config import build_config
from workbench.models.gguf_names import build_name_table
from workbench.models.handle import ModelHandle
from workbench.models.in_memory import ModuleTensors
from workbench.models.layers import find_layers, find_optional

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

GATE_AND_UP = ("gate_proj", "up_proj")  # of experts, which transformers has in one tensor
PIECE_BYTES = 1 << 20
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # read with the configuration


class GgufCheckpoint(Checkpoint):
    """The tensors of a GGUF file under the names of the module that they are for; two of them are one below the other there."""

    def __init__(self, file: GgufFile, names: Mapping[str, tuple[str, ...]], restore: Callable[[str, Tensor], Tensor]) -> None:
        self.folder, self.files = file.path, list(file.files)
        self._file, self._names, self._restore = file, names, restore
        self.entries = {name: self._describe(name) for name in names}

    def _describe(self, name: str) -> TensorEntry:
        parts = [self._file.tensors[part] for part in self._names[name]]
        shape = tuple(_join([self._restore(part.name, _build_empty(part.shape)) for part in parts]).shape)
        kinds = list(dict.fromkeys(part.kind for part in parts))
        if len(kinds) == 1 and kinds[0] in gguf_types.PLAIN:
            return TensorEntry(parts[0].path, shape, str(gguf_types.PLAIN[kinds[0]]).removeprefix("torch."))
        coded_as = " + ".join(map(gguf_types.name_type, kinds))
        return TensorEntry(parts[0].path, shape, "float32", coded_as, sum(part.bytes for part in parts))

    def read(self, tensor: str) -> Tensor:
        """One tensor, decoded, as the module has it."""
        return _join([self._restore(part, self._file.read(part)) for part in self._names[tensor]]).contiguous()

    def read_slice(self, tensor: str, index: int) -> Tensor:
        """One expert of a stack; nothing else is read."""
        return _join([self._file.read_slice(part, index) for part in self._names[tensor]])

    def codes(self, tensor: str) -> Codes | str:
        """See `Checkpoint`."""
        stored = self._file.tensors[self._names[tensor][0]]
        if stored.kind in gguf_types.PLAIN:
            return super().codes(tensor)
        codes = take_gguf_codes(self._file.read_bytes(stored.name), stored.kind, stored.shape)
        return codes if isinstance(codes, str) else arrange_rows(codes, lambda part: self._restore(stored.name, part))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over the files, which hold configuration and tokenizer too."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while piece := stream.read(PIECE_BYTES):
                    digest.update(piece)
        return digest.hexdigest()[:16]


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Matrices, or stacks of them, one below the other."""
    return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=-2)


class GgufModel(ModelHandle):
    """A model that was opened from a GGUF file; its `folder` holds its configuration and tokenizer in Hugging Face layout."""

    tokenizer_problem = ""

    @property
    def location(self) -> str:
        """The file."""
        return str(self._tensors.checkpoint.files[0].absolute()) + self._suffix

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that the file describes; ModelError where transformers cannot make one of it."""
        if not find_tokenizer_files(self.folder):
            raise ModelError(
                f"{self.source} has layers, but reads no text: its tokenizer cannot be made from the file "
                f"({self.tokenizer_problem})."
            )
        return architecture.load_tokenizer(self.folder)


def open_gguf(path: Path, source: str) -> GgufModel:
    """A handle on the model of a GGUF file; see `opening.open_model`."""
    gguf_types.import_gguf()
    file = read_gguf_parts(path)
    folder = Path(tempfile.mkdtemp(prefix="workbench-gguf-"))
    try:
        model = _open_in(folder, file, source)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def _open_in(folder: Path, file: GgufFile, source: str) -> GgufModel:
    """The handle, with its documents written to `folder`."""
    (folder / "config.json").write_text(json.dumps(build_config(file), indent=1))
    try:
        config = architecture.read_config(folder)
        module = architecture.build_module(config)
    except ModelError as error:
        raise ModelError(
            str(error).replace(str(folder / "config.json"), str(file.path)).replace(str(folder), str(file.path))
        ) from error
    checkpoint = GgufCheckpoint(file, _match_names(module, config, file), _choose_restoration(config))
    tensors = ModuleTensors(module, checkpoint)
    split = architecture.build_split_module(config) if tensors.stacks else module
    model = GgufModel(source, folder, config, tensors, find_layers(split, tensors), find_optional(split, tensors))
    model.tokenizer_problem = _write_tokenizer(file, folder)
    return model


def _match_names(module: nn.Module, config: "PretrainedConfig", file: GgufFile) -> dict[str, tuple[str, ...]]:
    """The names of the file's tensors by the module's; ModelError where the file holds one that the module has no use for."""
    table, stacks = build_name_table(config), find_stacks(module)
    names = {}
    for name in module.state_dict():
        path, _, leaf = name.rpartition(".")
        paths = [path]
        if name in stacks:
            paths, leaf = [f"{path}.{part}" for part in (GATE_AND_UP if leaf == "gate_up_proj" else (leaf,))], "weight"
        stored = tuple(f"{table.get_name(path)}.{leaf}" for path in paths)
        if all(part in file.tensors for part in stored):
            names[name] = stored
    unused = sorted(set(file.tensors) - {part for parts in names.values() for part in parts} - set(ROPE_TENSORS))
    if unused:
        raise ModelError(
            f"{file.path} holds {len(unused)} tensors that a {type(module).__name__} has no place for, first {unused[0]!r}; "
            f"give the folder of the original model in Hugging Face layout."
        )
    return names


def _build_empty(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, device="meta")


def _choose_restoration(config: "PretrainedConfig") -> Callable[[str, Tensor], Tensor]:
    """What undoes the changes that llama.cpp's conversion makes to the tensors of a family: name and tensor to tensor."""
    kind: Any = config.model_type
    if kind in ("llama", "mixtral"):
        heads, keys = config.num_attention_heads, config.num_key_value_heads
        return lambda name, tensor: restore_rotary_rows(tensor, _count_heads(name, heads, keys))
    if kind in ("gemma2", "gemma3_text"):
        return lambda name, tensor: tensor - 1 if name.endswith("norm.weight") else tensor
    if kind == "qwen2_moe":
        return lambda name, tensor: tensor[None] if name.endswith("ffn_gate_inp_shexp.weight") and tensor.ndim == 1 else tensor
    if kind == "gpt2":
        transposed = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
        return lambda name, tensor: tensor.T if name.endswith(transposed) else tensor
    return lambda _name, tensor: tensor


def _count_heads(name: str, heads: int, keys: int) -> int:
    """Heads whose rows llama.cpp reorders in a tensor: queries and keys of Llama, weights and biases; 0 for all others."""
    leaf = name.rsplit(".", 2)[-2]
    return heads if leaf == "attn_q" else keys if leaf == "attn_k" else 0


def restore_rotary_rows(tensor: Tensor, heads: int) -> Tensor:
    """Rows as transformers has them, each head's first half before its second, from llama.cpp's, where they alternate.

    Args:
        tensor: Rows of queries or keys `[rows, …]`.
        heads: How many heads they are of; 0 leaves them as they are.

    Returns:
        The same rows in the other order.
    """
    if not heads:
        return tensor
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _write_tokenizer(file: GgufFile, folder: Path) -> str:
    """Write the tokenizer of the file to `folder`; the reason where transformers cannot make it."""
    from transformers import AutoTokenizer

    if "tokenizer.ggml.tokens" not in file.metadata:
        return "it holds no vocabulary"
    try:
        with architecture.silence_transformers_log():
            path = file.path.absolute()
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True).save_pretrained(folder)
    except Exception as error:  # noqa: BLE001  of many types: whatever transformers raises about a vocabulary
        return architecture.shorten_error_text(error)
    return ""
