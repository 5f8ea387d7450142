"""Quantizers: kinds of parts, the pipeline that runs them on a layer, and runs over the layers of a model.

Importing the package registers every transform, split, coder, assignment, correction, choice for activations, refinement,
allocation and scheme for key-value caches.
"""

from workbench.quantizers import activations, allocation, assignment, coders, corrections, kv, refinements, splits, transforms
from workbench.quantizers.folding import fold
from workbench.quantizers.runs.progress import LayerProgress
from workbench.quantizers.runs.quantize_layer import quantize, quantize_steps
from workbench.quantizers.runs.quantize_model import quantize_model, quantize_model_steps
from workbench.quantizers.runs.saved_refinement import refine_model, refine_model_steps

__all__ = [
    "LayerProgress",
    "activations",
    "allocation",
    "assignment",
    "coders",
    "corrections",
    "fold",
    "kv",
    "quantize",
    "quantize_model",
    "quantize_model_steps",
    "quantize_steps",
    "refine_model",
    "refine_model_steps",
    "refinements",
    "splits",
    "transforms",
]
