"""Configurations without a class known to transformers: deciding whether the checkpoint is a causal language model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.models import architecture
from workbench.models.block_counts import check_block_count
from workbench.models.checkpoint import Checkpoint
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def name_architecture(config: "PretrainedConfig", folder: Path) -> None:
    """Write the class into a configuration that names none: the causal one where its head is in the checkpoint, else the bare."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    if any(hasattr(transformers, name) for name in config.architectures or ()):
        return
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if causal is not None and is_decoder(config):
        config.architectures, checkpoint = [causal], Checkpoint(folder)
        check_block_count(config, checkpoint)
        if _has_stored_head(config, checkpoint):
            return
    bare = MODEL_MAPPING_NAMES.get(config.model_type)
    config.architectures = [bare] if isinstance(bare, str) else None


def is_decoder(config: "PretrainedConfig") -> bool:
    """Whether a model of this type writes text unless it says otherwise: no encoder, nothing with an encoder beside it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.is_encoder_decoder:
        return False
    return config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or bool(getattr(config, "is_decoder", False))


def _has_stored_head(config: "PretrainedConfig", checkpoint: Checkpoint) -> bool:
    """Whether everything that the causal class has beyond the bare model is stored, or tied to something that is."""
    module: Any = architecture.build_module(config)
    missing = TensorMap(module, checkpoint).missing
    return all(name.startswith(f"{module.base_model_prefix}.") for name in missing)
