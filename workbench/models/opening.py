"""From what a user types to a folder on disk to a ModelHandle: the built-in model, a local folder, or a hub id."""

import re
from pathlib import Path

from workbench.errors import ModelError
from workbench.models import architecture
from workbench.models.checkpoint import Checkpoint
from workbench.models.handle import ModelHandle
from workbench.models.layers import find_layers
from workbench.models.tensor_map import TensorMap

BUILTIN = "builtin"
BUILTIN_FOLDER = Path(__file__).parent / "builtin"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ("*.safetensors", "*.json", "tokenizer*", "*.model", "vocab.txt", "merges.txt")


def open_model(source: str | Path) -> ModelHandle:
    """Open "builtin", a local folder in Hugging Face layout, or a hub id ("owner/name"), reading headers only.

    Weights are read when they are asked for. Only a hub id ever uses the network. Raises ModelError, one sentence, for
    anything that is not a safetensors model with linear layers in its transformer blocks.
    """
    folder = locate(source)
    config = architecture.read_config(folder)
    checkpoint = Checkpoint(folder)
    tensors = TensorMap(architecture.build_module(config), checkpoint)
    layers = find_layers(architecture.empty_module(config), tensors)
    return ModelHandle(str(source), folder, config, tensors, layers)


def locate(source: str | Path) -> Path:
    """The folder that `source` means; a hub id is downloaded (or found in the hub's cache) first."""
    if str(source) == BUILTIN:
        return BUILTIN_FOLDER
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{str(source)!r} is a file; give the folder that holds config.json and model.safetensors.")
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return download(source)
    raise ModelError(
        f"there is no folder {str(source)!r}; use 'builtin', a folder with config.json and model.safetensors, "
        f"or a hub id such as 'openai-community/gpt2'."
    )


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
            f"there is no folder {hub_id!r}, and the hub model of that name is neither in the local cache nor reachable "
            f"from here; copy its folder to this machine or use 'builtin'."
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(f"hub model {hub_id!r} could not be downloaded: {architecture.first_line(error)}") from error
