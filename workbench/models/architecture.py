"""The interface to transformers: a configuration, an empty module, a loaded module, a tokenizer.

Remote code is never run, nothing is ever fetched here, and a weight that is missing is an error, never a random number.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from workbench.errors import ModelError
from workbench.models.checkpoint import check_finite
from workbench.models.config_file import check_not_quantized, find_quantization, read_fields
from workbench.models.experts import find_stacks, split_experts
from workbench.models.streaming import Read, keep_stored_types, stream_blocks
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

MAX_ERROR_CHARS = 500  # characters of what transformers says


def read_quantization(folder: Path) -> dict[str, Any] | None:
    """What config.json says about how another program quantized the weights, None where they are not quantized."""
    path = folder / "config.json"
    return find_quantization(path, read_fields(path)) if path.is_file() else None


def read_config(folder: Path, *, packed: bool = False, coded: bool = False) -> "PretrainedConfig":
    """The model's configuration; ModelError when there is none, or transformers cannot build it without foreign code.

    A quantized model is refused, unless `packed` says that the folder is one that was saved here: then it is that of the
    original, without what makes transformers refuse it; or `coded` that its weights are decoded as they are read.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    from workbench.models.unnamed_architecture import name_architecture

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; give a model folder in Hugging Face layout.")
    fields = read_fields(path)
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in fields:
            raise ModelError(f"{path} needs the model's own Python code (auto_map), which is never run; use a model without it.")
        if model_type is None:
            raise ModelError(f"{path} names no model_type, such as 'llama'; take the one of the original model.")
        raise ModelError(f"{path} says model_type {model_type!r}, which the installed transformers does not know.")
    if not packed and not coded:
        check_not_quantized(path, fields)
    with translate_open_errors(path):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not packed:
        name_architecture(config, folder)
    for name in ("quantization_config", "compression_config", "transformers_weights"):
        if (packed or coded) and hasattr(config, name):
            delattr(config, name)
    return config


def is_causal(config: "PretrainedConfig") -> bool:
    """Whether the checkpoint was saved from a causal language model, which can generate."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return any(name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in config.architectures or ())


def _choose_auto_class(config: "PretrainedConfig") -> Any:
    """The causal language model class where the checkpoint is one, else the bare model (encoders)."""
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if is_causal(config) else AutoModel


def build_module(config: "PretrainedConfig") -> nn.Module:
    """The module as transformers builds it, in eval mode: parameters on the meta device (no memory), buffers computed."""
    with translate_open_errors(config.name_or_path or "the configuration"), _use_meta_parameters():
        return _choose_auto_class(config).from_config(config, dtype=torch.float32).eval()


def build_split_module(config: "PretrainedConfig") -> nn.Module:
    """The same with the experts of mixtures as layers of their own."""
    module = build_module(config)
    split_experts(module, find_stacks(module))
    return module


_building = threading.local()  # `meta`: whether this thread builds a module without its parameters


@contextmanager
def _use_meta_parameters() -> Iterator[None]:
    """Modules that this thread builds inside get meta parameters; their buffers (rotary frequencies) stay real."""
    _building.meta = True
    try:
        yield
    finally:
        _building.meta = False


def _convert_to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """The parameter on the meta device where this thread builds without them, None (which changes nothing) elsewhere."""
    if parameter is None or not getattr(_building, "meta", False):
        return None
    return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)


# once and for good: one that comes and goes breaks every thread that registers a parameter meanwhile; torch types it as None
register_module_parameter_registration_hook(cast(Any, _convert_to_meta))


def load_module(config: "PretrainedConfig", tensors: TensorMap, *, split: bool = True) -> nn.Module:
    """The model with its weights, float32, in eval mode, without gradients; every weight found and finite.

    The experts of mixtures are layers of their own, unless they are not to be `split`.
    """
    check_complete(tensors)
    module = build_split_module(config) if split else build_module(config)
    names = tensors.names if split else tensors.stacked_names
    fill(module, ((name, _read_finite(tensors, name)) for name in names if tensors.holds(name)))
    return module


def load_streamed(config: "PretrainedConfig", names: Iterable[str], blocks: Sequence[str], read: Read) -> nn.Module:
    """The model whose tensors `names` are given by `read(name)`: those of `blocks` whenever the forward pass needs them."""
    module = build_split_module(config)
    inside = tuple(f"{block}." for block in blocks)
    fill(module, keep_stored_types(module, ((name, read(name)) for name in names if not name.startswith(inside))))
    stream_blocks(module, blocks, read)
    return module


def _read_finite(tensors: TensorMap, name: str) -> Tensor:
    """One tensor; ModelError where it holds NaN or infinity."""
    tensor = tensors.read(name)
    check_finite(f"weight {name!r}", tensor)
    return tensor


def check_complete(tensors: TensorMap) -> None:
    """Raise ModelError where a parameter of the module has no source in the checkpoint."""
    if missing := tensors.missing:
        folder = tensors.checkpoint.folder
        raise ModelError(f"{folder} lacks {len(missing)} weights of its architecture, first {missing[0]!r}; download it again.")


def fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Give an empty module the tensors it needs, in its own types, and tie what is tied; what is not given stays empty."""
    for name, tensor in tensors:
        _set_tensor(module, name, tensor)
    with silence_transformers_log():  # that a head is not tied although the configuration says so is what was asked for
        cast(Any, module).tie_weights(missing_keys=find_empty_parameters(module), recompute_mapping=False)
    module.eval().requires_grad_(requires_grad=False)


def _set_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Give one parameter or buffer a value, in the type that the module has there (float32 for weights)."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    current = getattr(owner, leaf)
    value = tensor.to(current.dtype)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=False) if isinstance(current, nn.Parameter) else value)


def replace_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give parameters other values, float32; what is tied to one of them follows, unless it is given a value of its own."""
    tied = {name: source for name, source in cast(Any, module).all_tied_weights_keys.items() if name not in tensors}
    followers = {
        name: source
        for name, source in tied.items()
        if source in tensors and module.get_parameter(name) is module.get_parameter(source)
    }
    new = {name: nn.Parameter(tensor.float(), requires_grad=False) for name, tensor in tensors.items()}
    for name, parameter in [*new.items(), *((name, new[source]) for name, source in followers.items())]:
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, parameter)


def find_empty_parameters(module: nn.Module) -> set[str]:
    """Parameters that have no memory yet."""
    return {name for name, parameter in module.named_parameters(remove_duplicate=False) if parameter.is_meta}


def _read_generation_config(folder: Path) -> "GenerationConfig | None":
    """What the model's folder says about generation (end tokens), where it says anything; a loaded module has read it itself."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return None
    with translate_open_errors(folder):
        return GenerationConfig.from_pretrained(folder, local_files_only=True)


def set_generation(module: nn.Module, folder: Path) -> nn.Module:
    """The same module with what its folder says about generation, where it says anything."""
    generation = _read_generation_config(folder)
    if generation is not None:
        module.generation_config = generation  # type: ignore[assignment]
    return module


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json); copy it there to run the model on text.")
    with translate_open_errors(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def translate_open_errors(where: Path | str) -> Iterator[None]:
    """What transformers raises about a bad folder, of many types and lines, as one ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{where} cannot be opened by transformers: {shorten_error_text(error)}") from error


def shorten_error_text(error: Exception) -> str:
    """An error's own words, cut to one line, and to the next where the first only announces it."""
    first, *others = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    sentence = f"{first} {others[0]}" if first.endswith(":") and others else first
    return sentence if len(sentence) <= MAX_ERROR_CHARS else f"{sentence[:MAX_ERROR_CHARS]} …"


@contextmanager
def silence_transformers_log() -> Iterator[None]:
    """transformers logs advice on standard error."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
