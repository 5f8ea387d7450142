"""A preview: the result of a recipe on a layer, computed while its settings change; only the latest one is kept."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from workbench.analysis.decisions.preset_trials import spread_rows
from workbench.intervals import estimate_positive_interval
from workbench.models.layers import Layer
from workbench.quantized import QuantizedLayer

WEIGHTS = 1 << 18  # as many are quantized for a preview: a whole layer of the built-in model, some rows of a large one
NO_ERRORS = np.empty((2, 0))


@dataclass(frozen=True)
class Preview:
    """`result` holds `rows` of the layer's `row_count` rows, spread evenly; `result_key` names layer, recipe and calibration.

    `errors [2, rows]` are the energy of the error and of the weights in each of these rows, where they are a part of the layer.
    """

    result_key: str
    result: QuantizedLayer
    rows: range
    row_count: int
    errors: np.ndarray

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole layer, and so just what quantizing it makes."""
        return len(self.rows) == self.row_count

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the whole layer's relative error over the rows that were drawn; None for one, or all."""
        if self.errors.shape[1] < 2:
            return None
        return estimate_positive_interval(self.errors.T)


def compute_row_errors(weight: Tensor, result: QuantizedLayer) -> np.ndarray:
    """Energy of the error and of `weight [rows, cols]` in each row, float64 `[2, rows]`."""
    original = weight.double()
    row_error = (result.weight() - original).square().sum(1)
    return np.stack([row_error.numpy(), original.square().sum(1).numpy()])


def choose_preview_rows(layer: Layer) -> range:
    """Which rows of a layer are previewed: all of a small one, some of a large one, spread evenly, at least one of any."""
    return spread_rows(layer.rows, max(1, WEIGHTS // layer.cols))
