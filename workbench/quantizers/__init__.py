"""Quantizers: kinds of parts, the pipeline that runs them on a layer, and loops over the layers of a model.

Importing the package registers every transform, split, coder, assignment, correction and choice for activations.
"""

from workbench.quantizers import activations, assignment, coders, corrections, splits, transforms
from workbench.quantizers.layer import quantize, quantize_steps
from workbench.quantizers.model import quantize_model, quantize_model_steps
from workbench.quantizers.progress import LayerProgress

__all__ = [
    "LayerProgress",
    "activations",
    "assignment",
    "coders",
    "corrections",
    "quantize",
    "quantize_model",
    "quantize_model_steps",
    "quantize_steps",
    "splits",
    "transforms",
]
