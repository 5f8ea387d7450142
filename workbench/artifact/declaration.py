"""The declaration of a saved folder in config.json: that its layers are packed, and which package reads them.

transformers skips a `quantization_config` of a method that it does not know, with a warning, and would make up random layers.
What stops it is `transformers_weights`, the entry that names the weight file: a name that ends in anything but .safetensors is
refused with an error that quotes it, so the entry holds a sentence. Releases that do not know that entry refuse the method
(4.45) or find no model.safetensors. `artifact.plugin` names the file instead.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.artifact.folder_layout import MODEL, VERSION
from workbench.bits import BitLedger
from workbench.models.config_file import QUANT_METHOD, read_fields
from workbench.quantized import QuantizedLayer

SENTENCE = (
    f"none, because the layers are packed ({MODEL}) by the Python package {QUANT_METHOD}, "
    f"which has to be imported first: `import workbench`"
)


def build_config_document(
    original: Path, layers: Mapping[str, QuantizedLayer], architectures: Sequence[str], *, apart: bool, weights: int
) -> dict[str, Any]:
    """The original's configuration with how it is quantized, and the sentence that transformers quotes when it refuses.

    `architectures` are the classes that the model was opened as, which its own file need not name. `apart` says that a head that
    is tied to the embedding in the original is stored as a matrix of its own, `weights` counts all weights of the model.
    """
    book = BitLedger.merge(layer.ledger for layer in layers.values())
    facts = {
        "quant_method": QUANT_METHOD,
        "version": VERSION,
        "bits_per_weight": book.bits_per_weight,
        "nominal_bits": book.nominal_bits,
        "coverage": book.weights / weights,
        "layers": len(layers),
    }
    config: dict[str, Any] = {**read_fields(original), "architectures": list(architectures)}
    config.pop("compression_config", None)  # how the original was quantized says nothing about this model
    return {
        **config,
        **(_make_untied_entries(config) if apart else {}),
        "quantization_config": facts,
        "transformers_weights": SENTENCE,
    }


def _make_untied_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that say that the head is not tied, also in the part on text of a model that reads more."""
    text = config.get("text_config")
    nested = {"text_config": {**text, "tie_word_embeddings": False}} if isinstance(text, Mapping) else {}
    return {"tie_word_embeddings": False, **nested}
