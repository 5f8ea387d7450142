"""Saved quantized models: a folder with everything needed to run, counted to the last bit and checked when it is read.

- packed.safetensors: packed layers, and every other tensor of the model in its original type (model.safetensors in version 1)
- recipe.json: what was done: plan, calibration, and how each layer's tensors form a stored matrix
- ledger.json: what it costs, and the SHA-256 of every tensor and file
- config.json: the model's, with what was done (`quantization_config`) and what makes transformers refuse the folder in one
  sentence, unless workbench is imported: then `AutoModelForCausalLM.from_pretrained(folder)` runs on the packed layers
- tokenizer.json and its like, copied from the model
"""

from workbench.artifact.folder_layout import is_artifact
from workbench.artifact.loading import load
from workbench.artifact.packed_model import PackedModel
from workbench.artifact.saving import save

__all__ = ["PackedModel", "is_artifact", "load", "save"]
