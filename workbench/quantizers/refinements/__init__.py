"""Training of a block after all its layers are quantized; importing the package registers all of them."""

from workbench.quantizers.refinements.block import Block
from workbench.quantizers.refinements.model import Model
from workbench.quantizers.refinements.none import NoRefinement

__all__ = ["Block", "Model", "NoRefinement"]
