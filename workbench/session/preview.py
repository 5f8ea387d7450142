"""A preview: what a recipe would make of a layer, computed while its settings are turned; only the latest one is kept."""

from dataclasses import dataclass

from workbench.models.layers import Layer
from workbench.quantized import QuantizedLayer

WEIGHTS = 1 << 18  # as many are quantized for a preview: a whole layer of the built-in model, a few rows of a large one


@dataclass(frozen=True)
class Preview:
    """`result` holds the first `rows` rows of the layer's `of`; `made` is the key of layer, recipe and calibration."""

    made: str
    result: QuantizedLayer
    rows: int
    of: int

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole layer, and so just what quantizing it makes."""
        return self.rows == self.of


def preview_rows(layer: Layer) -> int:
    """How many rows of a layer are previewed: all of a small one, at least one of any."""
    return min(layer.rows, max(1, WEIGHTS // layer.cols))
