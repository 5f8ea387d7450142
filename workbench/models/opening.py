"""Opening a model by name: the built-in model, a local folder, or a hub id."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from workbench.errors import ModelError
from workbench.import_name import check_import_name
from workbench.models import architecture
from workbench.models.adapters import warn_of_adapter
from workbench.models.block_counts import check_block_count, warn_of_unused_blocks
from workbench.models.builtin import BUILTIN, BUILTIN_FOLDER
from workbench.models.checkpoint import Checkpoint
from workbench.models.coded_checkpoint import CodedCheckpoint, warn_of_rounded_inputs
from workbench.models.folder_kinds import FILE_SUFFIXES, check_folder, describe_file, find_gguf, is_gguf
from workbench.models.gguf_model import open_gguf
from workbench.models.handle import ModelHandle
from workbench.models.hub_cache import find_snapshot
from workbench.models.in_memory import PREFIX, open_module, reopen_module
from workbench.models.layers import find_layers, find_optional
from workbench.models.lora import ADAPTED, Adapter
from workbench.models.quantized_weights import check_plain_weights
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
HUB_FILES = ("*.safetensors", "*.json", "tokenizer*", "*.model", "vocab.txt", "merges.txt")


def open_model(
    source: str | Path | nn.Module,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    adapter: str | Path | None = None,
) -> ModelHandle:
    """Open a language model, to look at its layers, to quantize and to run it.

    Of files only the headers are read; weights are read when they are asked for, and only a hub id ever uses the network. Of a
    module in memory the weights are copied as they are now: what happens to the module later (training, edits) does not change
    the handle, nor anything that was computed and kept for it. Open the module again to work on the weights that it has then;
    they have a fingerprint of their own, so that nothing that was kept for the earlier ones is shown for them.

    Args:
        source: "builtin", a local folder in Hugging Face layout, a GGUF file or a folder with one, a hub id ("owner/name",
            "gpt2"), or a transformers model.
        tokenizer: The tokenizer of a model in memory; without one it has layers, but reads no text.
        adapter: The folder of a LoRA adapter, as peft saves it, that is merged into the weights as they are read. The source is
            then called "SOURCE + FOLDER", which opens the same model.

    Returns:
        A handle on the model.

    Raises:
        ModelError: In one sentence, where this is no safetensors or GGUF model with linear layers in its transformer blocks, or
            the adapter is another thing than a plain LoRA of this model.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> model.weight("model.layers.0.mlp.down_proj").shape
        torch.Size([256, 768])
    """
    check_import_name()
    if isinstance(source, nn.Module):
        return open_module(source, tokenizer)
    if not isinstance(source, str | Path):
        raise ModelError(
            f"open_model takes 'builtin', a folder, a hub id or a transformers model in memory, not a {type(source).__name__}."
        )
    if tokenizer is not None:
        raise ModelError(f"a tokenizer goes with a model in memory; {str(source)!r} has its own in its folder.")
    if adapter is None and ADAPTED in str(source) and not Path(source).exists():
        source, _, adapter = str(source).partition(ADAPTED)
    return _open_source(source) if adapter is None else merge_adapter(_open_source(source, adapted=True), Path(adapter))


def merge_adapter(model: ModelHandle, folder: Path) -> ModelHandle:
    """The same handle, with a LoRA adapter merged into what it reads; see `open_model`."""
    adapter = Adapter(folder.expanduser())
    names = [*model.layer_names, *(name for name in model.optional_names if model.layer(name).role == "head")]
    names = [name for name in names if not model.is_tied(name)]
    shapes = {name: (model.layer(name).rows, model.layer(name).cols) for name in names}
    adapter.check_fits(shapes, model.source)
    model.merge(adapter)
    return model


def _open_source(source: str | Path, *, adapted: bool = False) -> ModelHandle:
    """A handle on a folder, a file, or a hub id; an adapter beside it is warned of unless one is merged anyway."""
    if str(source).startswith(PREFIX):
        return reopen_module(str(source))
    folder = locate(source)
    if (file := find_gguf(folder)) is not None:
        return open_gguf(file, str(source))
    check_folder(folder)
    coding = architecture.read_quantization(folder)
    config = architecture.read_config(folder, coded=coding is not None)
    checkpoint = Checkpoint(folder) if coding is None else CodedCheckpoint(Checkpoint(folder), coding)
    check_block_count(config, checkpoint)
    built = architecture.build_module(config)
    check_plain_weights(built, checkpoint)
    tensors = TensorMap(built, checkpoint)
    module = architecture.build_split_module(config) if tensors.stacks else built  # the same where there are no experts to split
    layers, optional = find_layers(module, tensors), find_optional(module, tensors)
    warn_of_unused_blocks(config, built, checkpoint)
    if coding is not None:
        warn_of_rounded_inputs(folder, coding)
    if not adapted:
        warn_of_adapter(folder)
    return ModelHandle(str(source), folder, config, tensors, layers, optional)


def locate(source: str | Path) -> Path:
    """The folder, or the GGUF file, that `source` means; a hub id is downloaded (or found in the hub's cache) first."""
    if str(source) == BUILTIN:
        return BUILTIN_FOLDER
    try:
        folder = Path(source).expanduser()
        if folder.is_dir():
            return find_snapshot(folder)
        if is_gguf(folder):
            return folder
        if folder.exists():
            raise describe_file(folder)
    except (OSError, RuntimeError) as error:  # a name too long, a user who does not exist, a folder that may not be read
        raise ModelError(f"{str(source)!r} cannot be opened: {architecture.shorten_error_text(error)}.") from error
    if isinstance(source, str) and _is_hub_id(source):
        return download(source)
    raise ModelError(
        f"there is no folder {str(source)!r}; use 'builtin', a folder with config.json and model.safetensors, "
        f"or a hub id such as 'openai-community/gpt2'."
    )


def _is_hub_id(source: str) -> bool:
    """Whether a name can be a hub id, "owner/name" or one of the hub's first models ("gpt2"), and is no misspelt other thing."""
    if not HUB_ID.fullmatch(source):
        return False
    return "/" in source or not (source.endswith(FILE_SUFFIXES) or difflib.get_close_matches(source, [BUILTIN]))


def download(hub_id: str) -> Path:
    """Fetch config, tokenizer and safetensors of a hub model; never pickles, never code, never subfolders."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(HUB_FILES), ignore_patterns=["*/*"]))
    except GatedRepoError:
        raise ModelError(f"{hub_id!r} is gated: accept its terms on huggingface.co and log in with `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"there is no folder and no public hub model {hub_id!r}; check the spelling.") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise ModelError(
            f"there is no folder {hub_id!r}; use 'builtin' or a folder with config.json and model.safetensors, since the hub "
            f"model of that name is neither in the local cache nor reachable from here."
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(f"hub model {hub_id!r} could not be downloaded: {architecture.shorten_error_text(error)}") from error
