"""Conversion of a workbench model to a transformers model with packed layers."""

from typing import TYPE_CHECKING, Any

from workbench.artifact.packed_model import PackedModel
from workbench.artifact.quantized_copy import pack_model
from workbench.errors import ArtifactError
from workbench.models import ModelHandle
from workbench.quantized import QuantizedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def to_transformers(model: ModelHandle | PackedModel | QuantizedModel, original: ModelHandle | None = None) -> "PreTrainedModel":
    """A transformers model that computes what a model here computes; pipelines and evaluation harnesses run on it.

    Args:
        model: A handle on an original, a model from `wb.load`, or one from `wb.quantize_model`, which need not be saved for it.
        original: The model that was quantized; opened again from its source when absent.

    Returns:
        For an original a plain model, float32, with weights of its own. For a quantized one a model with packed layers in place,
        which shares everything else with the model that it is made from.

    Raises:
        ArtifactError: When the layers do not belong to the original, and for another type of model.
        ModelError: For encoders with quantized layers.

    Example:
        >>> import workbench as wb
        >>> small = wb.quantize_model(wb.open_model("builtin"), wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
        >>> type(wb.to_transformers(small)).__name__
        'LlamaForCausalLM'
    """
    if isinstance(model, ModelHandle | PackedModel):
        return model.to_transformers()
    if not isinstance(model, QuantizedModel):
        raise ArtifactError(
            f"to_transformers takes a model from wb.open_model, wb.quantize_model or wb.load, not a {type(model).__name__}."
        )
    module: Any = pack_model(model, original).module
    return module
