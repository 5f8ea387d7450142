"""A model that is already in memory: a copy of its weights replaces the files of other models."""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models import architecture
from workbench.models.checkpoint import Checkpoint, TensorEntry, find_tokenizer_files
from workbench.models.handle import ModelHandle
from workbench.models.layers import find_layers, find_optional
from workbench.models.quantized_weights import check_plain_weights
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFIX = "memory:"  # of the source of a model that was opened from memory
_open: "weakref.WeakValueDictionary[str, ModelInMemory]" = weakref.WeakValueDictionary()


class MemoryCheckpoint(Checkpoint):
    """Copies of a module's tensors by name, and a folder with its configuration and tokenizer but without weights."""

    def __init__(self, name: str, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        self.folder, self.files, self._tensors = folder, [], dict(tensors)
        self.source = f"{PREFIX}{name}-{self.fingerprint}"
        self.entries = {
            name: TensorEntry(Path(self.source), tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in self._tensors.items()
        }

    def read(self, tensor: str) -> Tensor:
        """A copy of one tensor in its own dtype, as a file would give one."""
        return self._tensors[tensor].clone()

    def read_slice(self, tensor: str, index: int) -> Tensor:
        """A copy of one entry of a tensor's first dimension."""
        return self._tensors[tensor][index].clone()

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over the configuration, the tokenizer's files and all tensors."""
        digest = hashlib.sha256()
        for file in [self.folder / "config.json", *find_tokenizer_files(self.folder)]:
            digest.update(file.name.encode() + file.read_bytes())
        for name, tensor in sorted(self._tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


class ModuleTensors(TensorMap):
    """The tensors of a module in a checkpoint that has them under the module's own names already."""

    def _group_tensors(self) -> tuple[dict[str, dict[str, list[str]]], dict[str, Any], tuple[str, ...]]:
        return {name: {name: [name]} for name in self.checkpoint.entries}, {}, ()


class ModelInMemory(ModelHandle):
    """A model that was opened from a module; its `folder` holds its configuration and tokenizer, but no weights."""

    in_memory = True

    def code(self) -> str:
        """Python that opens this model again, where `module` is the module and `tokenizer` its tokenizer."""
        return "wb.open_model(module, tokenizer=tokenizer)"

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that was given; ModelError where none was."""
        if not find_tokenizer_files(self.folder):
            raise ModelError(f"{self.source} has no tokenizer; give one: wb.open_model(module, tokenizer=tokenizer).")
        return architecture.load_tokenizer(self.folder)


def open_module(module: nn.Module, tokenizer: "PreTrainedTokenizerBase | None" = None) -> ModelInMemory:
    """A handle on a copy of a transformers model's weights as they are now; see `opening.open_model`."""
    model = _check_module(module)
    folder = Path(tempfile.mkdtemp(prefix="workbench-model-"))
    try:
        return _copy_module(model, tokenizer, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _copy_module(module: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None", folder: Path) -> ModelInMemory:
    """The handle, with the configuration and the tokenizer written to a folder that is removed when nobody needs it any more."""
    name = type(module).__name__
    _write_documents(module, tokenizer, folder)
    try:
        config = architecture.read_config(folder)
    except ModelError as error:
        raise ModelError(f"a {name} in memory cannot be opened: {error}".replace(str(folder), "its configuration")) from error
    built = architecture.build_module(config)
    _check_same(module, built)
    checkpoint = MemoryCheckpoint(name, folder, _copy_tensors(module, built))
    weakref.finalize(checkpoint, shutil.rmtree, folder, ignore_errors=True)
    check_plain_weights(built, checkpoint)
    tensors = ModuleTensors(built, checkpoint)
    split = architecture.build_split_module(config) if tensors.stacks else built
    layers, optional = find_layers(split, tensors), find_optional(split, tensors)
    handle = ModelInMemory(checkpoint.source, folder, config, tensors, layers, optional)
    return _open.setdefault(checkpoint.source, handle)


def reopen_module(source: str) -> ModelInMemory:
    """The handle that was opened from memory under this source; ModelError once it is gone."""
    handle = _open.get(source)
    if handle is None:
        raise ModelError(
            f"{source!r} was opened from a module in memory that no longer exists; open the module again and pass its handle."
        )
    return handle


def _check_module(module: nn.Module) -> "PreTrainedModel":
    """The same module; ModelError, one sentence, unless it is a transformers model with its weights in memory."""
    from transformers import PreTrainedModel

    name = type(module).__name__
    if not isinstance(module, PreTrainedModel):
        inside = next((part for part in ("_orig_mod", "module") if isinstance(getattr(module, part, None), nn.Module)), None)
        merges = hasattr(module, "merge_and_unload")
        advice = f"give its .{inside}" if inside else "give module.merge_and_unload()" if merges else "give a transformers model"
        raise ModelError(f"a module in memory must be a transformers model, not a {name}; {advice}.")
    empty = [path for path, tensor in module.state_dict().items() if tensor.is_meta]
    if empty:
        raise ModelError(
            f"{len(empty)} tensors of the {name} in memory have no values, first {empty[0]!r} (meta device, offloading); "
            f"load all of it into memory first, or open its folder."
        )
    return module


def _check_same(module: nn.Module, built: nn.Module) -> None:
    """ModelError unless transformers builds the same class with the same tensors from the module's configuration."""
    name = type(module).__name__
    if type(built) is not type(module):
        raise ModelError(
            f"a {name} in memory cannot be opened: its configuration builds a {type(built).__name__}; give a causal language "
            f"model, or a bare model (module.base_model)."
        )
    sizes, expected = ({path: list(t.shape) for path, t in one.state_dict().items()} for one in (module, built))
    other = sorted(path for path in sizes.keys() | expected.keys() if sizes.get(path) != expected.get(path))
    if other:
        raise ModelError(
            f"the {name} in memory differs from what its configuration describes in {len(other)} tensors, first {other[0]!r}: it "
            f"was changed after it was built (adapters, packed layers); merge or undo that, or open the original."
        )


def _write_documents(module: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None", folder: Path) -> None:
    """Configuration, settings of generation and tokenizer, in Hugging Face layout."""
    config = deepcopy(module.config)
    config.architectures = [type(module).__name__]
    with architecture.translate_open_errors(f"a {type(module).__name__} in memory"):
        config.save_pretrained(folder)
        if getattr(module, "generation_config", None) is not None:
            module.generation_config.save_pretrained(folder)
    if tokenizer is None:
        return
    if not hasattr(tokenizer, "save_pretrained"):
        raise ModelError(f"tokenizer must be a transformers tokenizer, not a {type(tokenizer).__name__}.")
    with architecture.translate_open_errors("the tokenizer"):
        tokenizer.save_pretrained(folder)


def _copy_tensors(module: nn.Module, built: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's tensors on the CPU, tied ones once."""
    state: dict[str, Tensor] = module.state_dict()
    tied: Mapping[str, str] = getattr(built, "all_tied_weights_keys", None) or {}
    doubles = {name for name, source in tied.items() if source in state and state[name].data_ptr() == state[source].data_ptr()}
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
        if name not in doubles
    }
