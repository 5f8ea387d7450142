"""Assignment `block-feedback`: a block of columns is coded at once, its error is fed back into later columns."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from workbench.quantizers.assignment.feedback import feed_back, list_tile_batches
from workbench.quantizers.contract import Assignment, Layout, Quantize
from workbench.recipe import setting
from workbench.registry import register


@register("assignment", "block-feedback")
@dataclass(frozen=True)
class BlockFeedback(Assignment):
    """Block error compensation as in BiLLM and ARB-LLM (arXiv 2402.04291, 2410.03129), with the exact triangular solve."""

    block: int = setting(128, "columns coded at once, rounded to whole steps of the coder", low=1, high=65536)
    damping: float = setting(0.01, "damping of the second moment, relative to its mean diagonal", low=0.0, high=10.0)
    repair: bool = setting(False, "in sequential runs, also compensate the errors of earlier layers")

    @property
    def needs_moment(self) -> bool:
        """Where an error hurts least is read from the second moment."""
        return True

    @property
    def repairs(self) -> bool:
        """As set."""
        return self.repair

    def run(self, w: Tensor, moment: Tensor | None, layout: Layout, quantize: Quantize) -> Iterator[Tensor]:
        """Code block by block from left to right."""
        assert moment is not None
        yield from feed_back(w, moment, list_tile_batches(layout, self.block), self.damping, quantize)
