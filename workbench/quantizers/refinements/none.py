"""Refinement `none`: the quantized block is not changed."""

from collections.abc import Generator
from dataclasses import dataclass

from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.learning.refine import QuantizedBlock, Refinement
from workbench.registry import register


@register("refinement", "none")
@dataclass(frozen=True)
class NoRefinement(Refinement):
    """Changes nothing."""

    def refine(self, block: QuantizedBlock, seed: int) -> Generator[LearningStep, None, QuantizedBlock]:
        """The same block."""
        yield from ()
        return block
