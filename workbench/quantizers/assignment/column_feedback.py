"""Assignment `column-feedback`: GPTQ. After each column (or step), its error is fed back into later columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quantizers.assignment.feedback import FEEDBACK_COLUMNS, compute_energy, feed_back, list_tile_batches
from workbench.quantizers.contract import Assignment, Layout, Quantize
from workbench.recipe import setting
from workbench.registry import register


@register("assignment", "column-feedback")
@dataclass(frozen=True)
class ColumnFeedback(Assignment):
    """GPTQ (arXiv 2210.17323), with the coder's step instead of one column where vectors are coded (GPTVQ, arXiv 2402.15319).

    Parameters of a span are fitted when its first column is reached, on the columns as they have moved by then: all at once for
    each batch of columns with `fit_ahead`, when only errors of earlier batches have moved them, or on the original weights with
    `fit_first` ("static groups"). Order "moment" visits columns by descending second moment ("act-order"); spans are then fitted
    first in any case, as they are met in pieces.
    """

    order: str = setting("given", "order of the columns: as given, or by descending second moment", choices=("given", "moment"))
    fit_first: bool = setting(False, "fit all parameters on the original weights (static groups)")
    fit_ahead: bool = setting(False, "fit all parameters of a batch of 128 columns before coding it, as released")
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

    @property
    def static(self) -> bool:
        """As set, and always when columns are visited out of order."""
        return self.fit_first or self.order == "moment"

    def fitted_together(self, layout: Layout) -> list[tuple[int, int]]:
        """Whole batches with `fit_ahead`."""
        return layout.batches(max(FEEDBACK_COLUMNS, layout.step)) if self.fit_ahead and not self.static else []

    def run(self, w: Tensor, moment: Tensor | None, layout: Layout, quantize: Quantize) -> Iterator[Tensor]:
        """Code step by step."""
        assert moment is not None
        batches = list_tile_batches(layout, layout.step)
        if self.order == "moment":
            tiles = [tile for batch in batches for tile in batch]
            energy = compute_energy(moment)
            level = torch.stack([energy[start:stop].mean() for start, stop in tiles])
            tiles = [tiles[i] for i in torch.argsort(level, descending=True, stable=True)]
            count = max(FEEDBACK_COLUMNS // layout.step, 1)
            batches = [tiles[i : i + count] for i in range(0, len(tiles), count)]
        yield from feed_back(w, moment, batches, self.damping, quantize)
