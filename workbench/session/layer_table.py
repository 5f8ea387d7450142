"""The table of all layers: what is known of their weights, of their results, and of how these differ from another run's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.quantized import QuantizedLayer
from workbench.session.shared import SharedModel

if TYPE_CHECKING:
    import pandas as pd

SKETCHED = ("std", "absmax", "kurtosis", "outlier_share")
RESULTS = ("bits_per_weight", "nominal_bits", "relative_error", "output_error")


def tabulate_layers(
    shared: SharedModel,
    shown: Mapping[str, QuantizedLayer],
    beside: Mapping[str, QuantizedLayer],
    measured: Mapping[str, Mapping[str, float]],
    *,
    wait: bool,
) -> "pd.DataFrame":
    """All layers of the model; `beside` are those of the run that the `shown` ones are compared with, none for the original.

    Layers whose weights have not been read yet are read now, or stay empty where this does not `wait`.
    """
    table = shared.model.layers()
    read_sketch = shared.sketch if wait else shared.sketches.get
    sketches = [read_sketch(name) for name in table["name"]]
    for column in SKETCHED:
        table[column] = [float("nan") if sketch is None else getattr(sketch, column) for sketch in sketches]
    for column in RESULTS:
        values = [getattr(shown[name], column) if name in shown else None for name in table["name"]]
        table[column] = [float("nan") if value is None else value for value in values]
    if beside:
        errors = tabulate_errors(shared.model.layers(), beside, shown)
        table["error_difference"] = errors["error_difference"]
        table["bits_difference"] = [
            shown[name].bits_per_weight - beside[name].bits_per_weight if name in shown and name in beside else float("nan")
            for name in table["name"]
        ]
    for column, column_values in measured.items():
        table[column] = [column_values.get(name, float("nan")) for name in table["name"]]
    return table


def tabulate_errors(
    layers: "pd.DataFrame", beside: Mapping[str, QuantizedLayer], shown: Mapping[str, QuantizedLayer]
) -> "pd.DataFrame":
    """`layers` (name, block, matrix) with the errors of two runs: error_of, error_beside, error_shown, error_difference.

    Of the outputs where both were measured, else of the weights. A layer that only one of them quantizes has no error in the
    other; one that neither does has none at all.
    """
    rows = []
    for name in layers["name"]:
        pair = [beside.get(name), shown.get(name)]
        results = [result for result in pair if result is not None]
        measure = "output_error" if all(result.output_error is not None for result in results) else "relative_error"
        none = 0.0 if results else float("nan")
        errors = [none if result is None else float(getattr(result, measure)) for result in pair]
        rows.append((measure.removesuffix("_error").replace("relative", "weight") + "s", *errors, errors[1] - errors[0]))
    columns = list(zip(*rows, strict=True))
    names = ("error_of", "error_beside", "error_shown", "error_difference")
    return layers[["name", "block", "matrix"]].assign(**{name: list(values) for name, values in zip(names, columns, strict=True)})
