"""Quantization of a layer's input at run time; importing the package registers all kinds."""

from workbench.quantizers.activations.keep import KeepActivations
from workbench.quantizers.activations.per_token import RoundPerToken

__all__ = ["KeepActivations", "RoundPerToken"]
