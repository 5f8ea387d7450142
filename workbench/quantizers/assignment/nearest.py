"""Assignment `nearest`: every column by itself, without error feedback."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from workbench.quantizers.contract import Assignment, Layout, Quantize
from workbench.registry import register

SNAPSHOT_COLUMNS = 1024  # columns between two snapshots


@register("assignment", "nearest")
@dataclass(frozen=True)
class Nearest(Assignment):
    """Round to nearest."""

    def run(self, w: Tensor, moment: Tensor | None, layout: Layout, quantize: Quantize) -> Iterator[Tensor]:
        """Code from left to right."""
        for start, stop in layout.batches(SNAPSHOT_COLUMNS):
            w[:, start:stop] = quantize(w, start, stop)
            yield w
