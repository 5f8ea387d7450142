"""A model in one GGUF file: its tensors under the names of transformers, decoded one at a time; see `gguf_config`."""

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.exchange.reading import gguf_types
from workbench.exchange.reading.gguf_codes import take_gguf_codes
from workbench.exchange.reading.gguf_file import GgufFile, read_gguf
from workbench.exchange.reading.integer_codes import Codes, arrange_rows
from workbench.models import architecture
from workbench.models.checkpoint import Checkpoint, TensorEntry, find_tokenizer_files
from workbench.models.gguf_config import build_config
from workbench.models.gguf_names import build_name_table
from workbench.models.handle import ModelHandle
from workbench.models.in_memory import ModuleTensors
from workbench.models.layers import find_layers, find_optional

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

SPLIT = "split.count"  # in the metadata of a model in several files
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # read with the configuration


class GgufCheckpoint(Checkpoint):
    """The tensors of a GGUF file under the names of the module that they are for."""

    def __init__(self, file: GgufFile, names: Mapping[str, str], restore: Callable[[str, Tensor], Tensor]) -> None:
        self.folder, self.files = file.path, [file.path]
        self._file, self._names, self._restore = file, names, restore
        self.entries = {name: self._describe(name) for name in names}

    def _describe(self, name: str) -> TensorEntry:
        stored = self._file.tensors[self._names[name]]
        shape = tuple(self._restore(self._names[name], _build_empty(stored.shape)).shape)
        if stored.kind in gguf_types.PLAIN:
            return TensorEntry(self._file.path, shape, str(gguf_types.PLAIN[stored.kind]).removeprefix("torch."))
        return TensorEntry(self._file.path, shape, "float32", gguf_types.name_type(stored.kind), stored.bytes)

    def read(self, tensor: str) -> Tensor:
        """One tensor, decoded, as the module has it."""
        stored = self._names[tensor]
        return self._restore(stored, self._file.read(stored)).contiguous()

    def codes(self, tensor: str) -> Codes | str:
        """See `Checkpoint`."""
        stored = self._file.tensors[self._names[tensor]]
        if stored.kind in gguf_types.PLAIN:
            return super().codes(tensor)
        codes = take_gguf_codes(self._file.read_bytes(stored.name), stored.kind, stored.shape)
        return codes if isinstance(codes, str) else arrange_rows(codes, lambda part: self._restore(stored.name, part))

    def read_slice(self, tensor: str, index: int) -> Tensor:
        """One entry of a tensor's first dimension."""
        return self.read(tensor)[index]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over the file, which holds configuration and tokenizer too."""
        with self._file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


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
    file = read_gguf(path)
    if file.metadata.get(SPLIT, 1) != 1:
        raise ModelError(
            f"{path} is one of {file.metadata[SPLIT]} files of a model; merge them first: llama-gguf-split --merge FIRST OUT."
        )
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
    model = GgufModel(source, folder, config, tensors, find_layers(module, tensors), find_optional(module, tensors))
    model.tokenizer_problem = _write_tokenizer(file, folder)
    return model


def _match_names(module: nn.Module, config: "PretrainedConfig", file: GgufFile) -> dict[str, str]:
    """The name of the file's tensor by the module's; ModelError where the file holds one that the module has no use for."""
    table = build_name_table(config)
    names = {}
    for name in module.state_dict():
        path, _, leaf = name.rpartition(".")
        stored = table.get_name(path)
        if stored is not None and f"{stored}.{leaf}" in file.tensors:
            names[name] = f"{stored}.{leaf}"
    unused = sorted(set(file.tensors) - set(names.values()) - set(ROPE_TENSORS))
    if unused:
        raise ModelError(
            f"{file.path} holds {len(unused)} tensors that a {type(module).__name__} has no place for, first {unused[0]!r}; "
            f"give the folder of the original model in Hugging Face layout."
        )
    return names


def _build_empty(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.empty(shape, device="meta")


def _choose_restoration(config: "PretrainedConfig") -> Callable[[str, Tensor], Tensor]:
    """What undoes the changes that llama.cpp's conversion makes to the tensors of a family: name and tensor to tensor."""
    kind: Any = config.model_type
    if kind == "llama":
        heads, keys = config.num_attention_heads, config.num_key_value_heads
        return lambda name, tensor: restore_rotary_rows(tensor, _count_heads(name, heads, keys))
    if kind in ("gemma2", "gemma3_text"):
        return lambda name, tensor: tensor - 1 if name.endswith("norm.weight") else tensor
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
