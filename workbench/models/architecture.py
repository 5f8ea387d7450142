"""What transformers is asked for: a configuration, an empty module, a loaded module, a tokenizer. Nothing else imports it.

Remote code is never run, nothing is ever fetched here, and a weight that is missing is an error, never a random number.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from workbench.errors import ModelError
from workbench.models.checkpoint import check_finite

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

QUANT_METHOD = "quantization-workbench"  # what config.json of a model that was saved here calls its quantization


def read_config(folder: Path, *, packed: bool = False) -> "PretrainedConfig":
    """The model's configuration; ModelError when there is none, or transformers cannot build it without foreign code.

    A quantized model is refused, unless `packed` says that the folder is one that was saved here: then it is that of the
    original, without what makes transformers refuse it.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; give a model folder in Hugging Face layout.")
    try:
        fields = json.loads(path.read_text())
        model_type = fields.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} is not a JSON object ({error}); download it again.") from error
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in fields:
            raise ModelError(f"{path} needs the model's own Python code (auto_map), which is never run; use a model without it.")
        raise ModelError(f"{path} says model_type {model_type!r}, which the installed transformers does not know.")
    if "quantization_config" in fields:
        method = fields["quantization_config"].get("quant_method", "an unnamed method")
        if method != QUANT_METHOD:
            raise ModelError(f"{folder} is already quantized ({method}); open the original model instead.")
        if not packed:
            raise ModelError(f"{folder} is a quantized model that was saved by wb.save; load it with wb.load({str(folder)!r}).")
    with one_sentence(path):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for name in ("quantization_config", "transformers_weights"):
        if packed and hasattr(config, name):
            delattr(config, name)
    return config


def is_causal(config: "PretrainedConfig") -> bool:
    """Whether the checkpoint was saved from a causal language model, which can generate."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return any(name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in config.architectures or ())


def auto_class(config: "PretrainedConfig") -> Any:
    """The causal language model class where the checkpoint is one, else the bare model (encoders)."""
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if is_causal(config) else AutoModel


def empty_module(config: "PretrainedConfig") -> nn.Module:
    """The model's module in eval mode, parameters on the meta device (no memory), buffers computed."""
    with one_sentence(config.name_or_path or "the configuration"), parameters_on_meta():
        return auto_class(config).from_config(config, dtype=torch.float32).eval()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules that this thread builds inside get meta parameters; their buffers (rotary frequencies) stay real."""
    thread = threading.get_ident()

    def to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != thread:
            return parameter
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(cast(Any, to_meta))  # torch types its result as None
    try:
        yield
    finally:
        hook.remove()


def load_module(folder: Path, config: "PretrainedConfig") -> nn.Module:
    """The model with its weights, float32, in eval mode, without gradients; every weight found and finite."""
    with one_sentence(folder), no_progress_bar():
        module, found = auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} weights of its architecture, first {missing[0]!r}; download it again.")
    for name, parameter in module.named_parameters():
        check_finite(f"weight {name!r}", parameter)
    return module.eval().requires_grad_(requires_grad=False)


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an empty module the tensors it needs, float32, and tie what is tied; what is not given stays empty."""
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    module.load_state_dict(wide, strict=False, assign=True)
    with only_errors():  # that a head is not tied although the configuration says so is what was asked for
        cast(Any, module).tie_weights(missing_keys=empty_parameters(module), recompute_mapping=False)
    module.eval().requires_grad_(requires_grad=False)


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


def empty_parameters(module: nn.Module) -> set[str]:
    """Parameters that have no memory yet."""
    return {name for name, parameter in module.named_parameters(remove_duplicate=False) if parameter.is_meta}


def read_generation_config(folder: Path) -> "GenerationConfig | None":
    """What the model's folder says about generation (end tokens), where it says anything; a loaded module has read it itself."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return None
    with one_sentence(folder):
        return GenerationConfig.from_pretrained(folder, local_files_only=True)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json); copy it there to run the model on text.")
    with one_sentence(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def one_sentence(where: Path | str) -> Iterator[None]:
    """What transformers raises about a bad folder, of many types and lines, as one ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{where} cannot be opened by transformers: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """An error's own words, cut to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def only_errors() -> Iterator[None]:
    """transformers logs advice on standard error."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """transformers draws a bar on standard error while it loads; a library and `--json` keep quiet."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
