"""Quantized layers and models: the stored form, its bits and its errors."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.bits import BitLedger
from workbench.cell_display import CellSummary, ShownInCell
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.memory import release_memory, spill
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    import pandas as pd


MODEL_REFINEMENT = "model_refinement"  # what the training of the whole model took and gained, among the facts of calibration


@dataclass(frozen=True)
class QuantizedLayer(ShownInCell):
    """One quantized matrix `[rows, cols]`.

    `relative_error` = ‖Ŵ−W‖²/‖W‖²; `output_error` = tr(E H Eᵀ)/tr(W H Wᵀ), None where the layer was not calibrated. `edits` say
    what was changed by hand after the recipe had run (see `analysis.code_edit`). `tokens` are those that the second moment H was
    measured on; None where their number is not known, 0 where none came to the layer. `source` is what the model was opened by,
    empty where that alone does not give the matrix (a fused model).
    """

    name: str
    packed: Packed
    recipe: Recipe
    ledger: BitLedger
    relative_error: float
    output_error: float | None = None
    seconds: float = 0.0
    edits: tuple[str, ...] = ()
    tokens: int | None = None
    source: str = field(default="", compare=False)

    def __repr__(self) -> str:
        bits = f"{self.bits_per_weight:.2f} bits per weight ({self.nominal_bits:.2f} nominal)"
        return f"<QuantizedLayer {self.name!r}: {self.packed.rows} × {self.packed.cols} at {bits}, error {self.error:.3g}>"

    def cell_summary(self) -> CellSummary:
        """What it stores and loses, and the recipe."""
        answer = f"{self.bits_per_weight:.2f} stored bits per weight ({self.nominal_bits:.2f} nominal), error {self.error:.3g}."
        output = "not calibrated" if self.output_error is None else f"{self.output_error:.4g}"
        rows = [
            ("shape", f"{self.packed.rows:,} × {self.packed.cols:,}"),
            ("recipe", self.recipe.code()),
            ("relative error of the weights", f"{self.relative_error:.4g}"),
            ("relative error of the output", output),
            *(
                (f"stored: {entry.item}", f"{entry.bits / self.ledger.weights:.3f} bits per weight")
                for entry in self.ledger.entries
            ),
            *(("edit", edit) for edit in self.edits),
        ]
        return CellSummary.of_rows(f"How was {self.name} quantized?", answer, ("", "value"), rows)

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

    def on_disk(self) -> "QuantizedLayer":
        """The same with its stored tensors on disk: where a model does not fit into memory, its results may not either."""

        def spill_tree(node: Packed) -> Packed:
            tensors = {name: spill(tensor) for name, tensor in node.tensors.items()}
            return replace(node, tensors=tensors, children=tuple(map(spill_tree, node.children)))

        spilled = replace(self, packed=spill_tree(self.packed))
        release_memory()
        return spilled

    def weight(self) -> Tensor:
        """The matrix the stored form decodes to, float32 `[rows, cols]` in the model's own basis."""
        return formats.decode(self.packed)


@dataclass(frozen=True)
class QuantizedModel(ShownInCell):
    """Quantized layers of one model by name, the plan that made them and how they were calibrated.

    `source` is what the model was opened by; `calibration` holds plain facts (text, tokens, seed). `changed_tensors` are the
    model's other tensors that were changed together with the layers (gains of norms), by the module's name, in the type and
    size in which the model stores them. `fused` says how the model was fused before (see `models.fused.fuse`); empty if not.
    `shapes` are those of all tensors of the model by the module's names, tied ones once; empty where they are not known.
    """

    source: str
    layers: Mapping[str, QuantizedLayer]
    plan: LayerPlan
    calibration: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    changed_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    fused: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<QuantizedModel {self.source!r}: {len(self.layers)} layers at {self.describe_bits()}>"

    def cell_summary(self) -> CellSummary:
        """What it stores, and the layers that lose most."""
        rows = [
            (layer.name, f"{layer.bits_per_weight:.2f}", f"{layer.nominal_bits:.2f}", f"{layer.error:.3g}")
            for layer in sorted(self.layers.values(), key=lambda layer: -layer.error)
        ]
        headers = ("layer, largest error first", "stored bits", "nominal", "error")
        answer = f"{len(self.layers)} layers quantized: {self.describe_bits()}."
        return CellSummary.of_rows(f"How was {self.source} quantized?", answer, headers, rows)

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

    @property
    def unquantized(self) -> dict[str, int]:
        """How many of the model's weights stay as stored, by kind (embedding, head, ...), most of them first, equals by name."""
        counts: Counter[str] = Counter()
        for name, shape in self.shapes.items():
            if name.removesuffix(".weight") not in self.layers:
                counts[classify_tensor(name, shape)] += math.prod(shape)
        return dict(sorted(counts.items(), key=lambda kind: (-kind[1], kind[0])))

    @property
    def coverage(self) -> float | None:
        """The share of the model's weights that are quantized, all that `bits_per_weight` counts; None where it is not known."""
        quantized = sum(layer.packed.rows * layer.packed.cols for layer in self.layers.values())
        return quantized / (quantized + sum(self.unquantized.values())) if self.shapes else None

    def describe_bits(self, overall: float | None = None) -> str:
        """Stored and nominal bits with the share of the weights that they are of, in words.

        `overall` are the stored bits per weight of the whole file, where there is one.
        """
        return describe_bits(self.bits_per_weight, self.nominal_bits, self.coverage, self.unquantized, overall)

    def calibration_gaps(self) -> list[str]:
        """A sentence about layers that no token of the text reached, and one about those that too few reached.

        Such layers are experts: a router sends them a part of the tokens.
        """
        unreached = [name for name in self.calibration.get("unreached", ()) if name in self.layers]
        sparse = {name: tokens for name, tokens in self.calibration.get("sparse", {}).items() if name in self.layers}
        sentences = []
        if unreached:
            sentences.append(
                f"{len(unreached)} of {len(self.layers)} layers saw no token of the text, first {unreached[0]}: "
                f"their errors are not weighted; calibrate on more tokens"
            )
        if sparse:
            least = min(sparse, key=lambda name: sparse[name])
            sentences.append(
                f"{len(sparse)} of {len(self.layers)} layers saw fewer tokens than they have inputs, the fewest {least}, "
                f"{sparse[least]:,} for {self.layers[least].packed.cols:,} inputs: "
                f"their errors are weighted by a rough estimate; calibrate on more than {self.calibration['tokens']:,} tokens"
            )
        return sentences

    def describe_refinement(self) -> str | None:
        """What the training of the whole model took and gained, in a sentence; None where there was none."""
        return describe_refinement(self.calibration)

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


def describe_bits(
    stored: float, nominal: float, coverage: float | None, unquantized: Iterable[str] = (), overall: float | None = None
) -> str:
    """Bits per weight with the share of the weights that they are of and, by kind, what stays as it is; see `QuantizedModel`."""
    text, kinds = f"{stored:.2f} stored bits per weight ({nominal:.2f} nominal)", ", ".join(unquantized)
    if coverage is not None:
        text += f" in {format_percent(coverage)} of the weights"
        text += f"; the other {format_percent(1 - coverage)} ({kinds}) are not quantized" if kinds else ""
    return text if overall is None else f"{text}: {overall:.2f} bits per weight overall"


def describe_refinement(calibration: Mapping[str, Any]) -> str | None:
    """What the training of the whole model took and gained, by the facts of a calibration; None where there was none."""
    facts = calibration.get(MODEL_REFINEMENT)
    if facts is None:
        return None
    took = f" in {facts['seconds']:,.0f} seconds" if "seconds" in facts else ""
    text = f"{facts['tokens']:,} tokens, of which the original wrote {facts['written_tokens']:,}"
    return (
        f"all blocks trained together ({facts['trains']}): {facts['steps']:,} steps of about {facts['step_tokens']:,} tokens "
        f"on {text}{took}; divergence from the original on held-out windows {facts['divergence_before']:.4g} → "
        f"{facts['divergence']:.4g} nats per token"
    )


def format_percent(share: float) -> str:
    """A share in per cent; one decimal, or as many as it takes to tell it from 0 and from 100."""
    rest = min(share, 1 - share)
    decimals = 1 if rest >= 0.001 or rest == 0 else -math.floor(math.log10(100 * rest))
    return f"{100 * share:.{decimals}f} %"


def classify_tensor(name: str, shape: Sequence[int]) -> str:
    """What a tensor beside the quantized layers is, by its name and shape."""
    lower, parts = name.lower(), name.lower().split(".")
    if len(shape) < 2:
        return "biases" if lower.endswith("bias") else "norms" if parts[-1] == "weight" else "other vectors"
    if any(part.isdecimal() for part in parts[:-1]):
        return "routers" if "router" in lower or parts[-2:-1] == ["gate"] else "other layers"
    if "head" in lower or "embed_out" in lower:
        return "head"
    return "embedding" if any(word in lower for word in ("emb", "wte", "wpe")) else "other layers"
