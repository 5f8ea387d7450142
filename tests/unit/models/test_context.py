"""How many tokens models read, as transformers' own default configurations and modules have it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from workbench.models.context import UNLIMITED_CONTEXT, find_context_length

LIMITS = {
    "llama": 2048,
    "roberta": 512 - 2,  # the default has 512 rows; the first of them is for padding, as row 1
    "xlm-roberta-xl": 514 - 2,
    "data2vec-text": 512 - 2,
    "bert": 512,
    "opt": 2048,  # has two rows more than positions
    "whisper": 448,
    "mpt": 2048,
    "prophetnet": 512 - 1 - 1,  # one row for padding, one for the token that is predicted
    "xlnet": UNLIMITED_CONTEXT,
    "bloom": UNLIMITED_CONTEXT,
}


def small(kind: str) -> PretrainedConfig:
    """Few and narrow blocks, positions as they are by default."""
    config = CONFIG_MAPPING[kind]()
    config.is_decoder = True
    return config


@pytest.mark.parametrize("kind", LIMITS)
def test_limits_of_families(kind: str) -> None:
    config = small(kind)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    assert find_context_length(module, config) == LIMITS[kind]
    if kind in ("roberta", "xlm-roberta-xl", "data2vec-text"):  # what the module itself can look up
        table = next(part for name, part in module.named_modules() if name.endswith("position_embeddings"))
        assert table.padding_idx + LIMITS[kind] == table.num_embeddings - 1
