"""The tiny random checkpoint of any causal model type that transformers knows, written to disk in its own layout."""

import re
import shutil
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from tests.zoo.configurations import tiny_configuration
from workbench.models.builtin import BUILTIN_FOLDER

TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MOST_PARAMETERS = 2_000_000
# decays, time constants and their like: what a family draws for them is stable, a random number may not be
AS_DRAWN = re.compile(r"A_log|a_log|\.D$|dt_|time_|lambda|sinks|rg_lru|decay|slope|learnable_skip|gate_logit")


def write_checkpoint(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model of type `kind` with the built-in tokenizer; what cannot be built raises transformers' own error."""
    config = tiny_configuration(kind)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{kind} has {parameters:,} parameters; name its large fields in configurations.py.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        randomise(module)
    module.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN_FOLDER / name, folder / name)
    return folder


@torch.no_grad()
def randomise(module: PreTrainedModel) -> None:
    """Draw weights so large that logits differ clearly, and move every gain and bias from the value it is born with."""
    owners = dict(module.named_modules())
    for name, parameter in module.named_parameters():
        owner = owners[name.rpartition(".")[0]]
        if AS_DRAWN.search(name) or isinstance(owner, _ConvNd):
            continue
        if isinstance(owner, nn.Embedding):
            parameter.normal_(0, 0.2)
            if owner.padding_idx is not None:
                parameter[owner.padding_idx] = 0  # as in trained models; some families clear it when they load
        elif isinstance(owner, nn.Linear | Conv1D) and parameter.ndim == 2:
            parameter.normal_(0, (parameter.shape[0] if isinstance(owner, Conv1D) else parameter.shape[1]) ** -0.5)
        elif parameter.ndim >= 2:
            parameter.normal_(0, min(parameter.shape[-2:]) ** -0.5)
        else:
            parameter.add_(0.05 * torch.randn_like(parameter))
    for name, buffer in module.named_buffers():
        if name in module.state_dict() and name.endswith(("bias", "biases")):
            buffer.add_(0.05 * torch.randn_like(buffer))  # zeros at birth: nobody would miss them
