"""What a recipe made of a layer or of a model: the stored form, its cost and its distance from the original."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.bits import BitLedger
from workbench.kernels import reference
from workbench.kernels.packed import Packed
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class QuantizedLayer:
    """One quantized matrix `[rows, cols]`.

    `relative_error` = ‖Ŵ−W‖²/‖W‖²; `output_error` = tr(E H Eᵀ)/tr(W H Wᵀ), None where the layer was not calibrated. `edits` say
    what was changed by hand after the recipe had run (see `analysis.code_edit`).
    """

    name: str
    packed: Packed
    recipe: Recipe
    ledger: BitLedger
    relative_error: float
    output_error: float | None = None
    seconds: float = 0.0
    edits: tuple[str, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return self.ledger.bits_per_weight

    @property
    def nominal_bits(self) -> float:
        """Bits per weight as the method's paper counts them."""
        return self.ledger.nominal_bits

    @property
    def error(self) -> float:
        """The output error where there is one, else the relative error."""
        return self.relative_error if self.output_error is None else self.output_error

    def weight(self) -> Tensor:
        """The matrix the stored form decodes to, float32 `[rows, cols]` in the model's own basis."""
        return reference.decode(self.packed)


@dataclass(frozen=True)
class QuantizedModel:
    """Quantized layers of one model by name, the plan that made them and how they were calibrated.

    `source` is what the model was opened by; `calibration` holds plain facts (text, tokens, seed). `changed_tensors` are the
    model's other tensors that were changed together with the layers (gains of norms), by the module's name, in the type and
    size in which the model stores them. `fused` says how the model was fused before (see `models.fused.fuse`); empty if not.
    """

    source: str
    layers: Mapping[str, QuantizedLayer]
    plan: LayerPlan
    calibration: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    changed_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    fused: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ledger(self) -> BitLedger:
        """All layers' items added up; items shared by layers count once."""
        return BitLedger.merge(layer.ledger for layer in self.layers.values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over the quantized layers."""
        return self.ledger.bits_per_weight

    @property
    def nominal_bits(self) -> float:
        """Nominal bits per weight over the quantized layers."""
        return self.ledger.nominal_bits

    def table(self) -> "pd.DataFrame":
        """One row a layer: name, rows, cols, bits_per_weight, nominal_bits, relative_error, output_error, seconds."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "name": layer.name,
                    "rows": layer.packed.rows,
                    "cols": layer.packed.cols,
                    "bits_per_weight": layer.bits_per_weight,
                    "nominal_bits": layer.nominal_bits,
                    "relative_error": layer.relative_error,
                    "output_error": layer.output_error,
                    "seconds": layer.seconds,
                }
                for layer in self.layers.values()
            ]
        )
