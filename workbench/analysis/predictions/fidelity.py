"""Errors of quantized matrices, measured on the stored form and not taken from the quantizer's report."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from workbench.calibration import CalibrationStats
from workbench.models.handle import ModelHandle
from workbench.quantized import QuantizedLayer
from workbench.quantizers.distance import compute_output_error, compute_relative_error

if TYPE_CHECKING:
    import pandas as pd

FIDELITY_COLUMNS = ["name", "rows", "cols", "bits_per_weight", "nominal_bits", "relative_error", "output_error"]


def tabulate_fidelity(
    model: ModelHandle, layers: Iterable[QuantizedLayer], stats: CalibrationStats | None = None
) -> "pd.DataFrame":
    """One row a layer: name, rows, cols, bits_per_weight, nominal_bits, relative_error, output_error (None without `stats`).

    `relative_error` = ‖Ŵ−W‖²/‖W‖²; `output_error` = tr(E H Eᵀ)/tr(W H Wᵀ) under the second moment H in `stats`, which may
    come from another text than the one the layers were quantized with.
    """
    import pandas as pd

    rows = []
    for layer in layers:
        original, decoded = model.weight(layer.name).float(), layer.weight()
        output_loss = None if stats is None else compute_output_error(original, decoded, stats[layer.name].moment)
        shape = (layer.packed.rows, layer.packed.cols)
        rows.append(
            (
                layer.name,
                *shape,
                layer.bits_per_weight,
                layer.nominal_bits,
                compute_relative_error(original, decoded),
                output_loss,
            )
        )
    return pd.DataFrame(rows, columns=FIDELITY_COLUMNS)
