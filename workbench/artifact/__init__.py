"""Saved quantized models: a folder that holds everything needed to run, counted to the last bit and checked when it is read.

- model.safetensors: packed layers, and every other tensor of the model in its original type
- recipe.json: what was done: plan, calibration, and how each layer's tensors form a stored matrix
- ledger.json: what it costs, and the SHA-256 of every tensor and file
- config.json, tokenizer.json and their like, copied from the model
"""

from workbench.artifact.layout import is_artifact
from workbench.artifact.loading import load
from workbench.artifact.packed_model import PackedModel
from workbench.artifact.saving import save

__all__ = ["PackedModel", "is_artifact", "load", "save"]
