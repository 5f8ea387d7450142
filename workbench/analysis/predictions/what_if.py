"""What if one layer were quantized? The effect on the model's predictions, with all else unchanged."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.suffix_replay import REPLAY_TOKENS, Replay
from workbench.calibration import CalibrationStats
from workbench.cell_display import CellSummary, ShownInCell
from workbench.intervals import Interval
from workbench.models.handle import ModelHandle
from workbench.models.perplexity import PerplexityRatio
from workbench.models.text import Text
from workbench.quantized import QuantizedLayer
from workbench.quantizers import quantize
from workbench.recipe import Recipe


@dataclass(frozen=True)
class WhatIf(ShownInCell):
    """One quantized layer and the divergence it causes; the figures most asked for are repeated here."""

    layer: QuantizedLayer
    divergence: Divergence

    def __repr__(self) -> str:
        return f"<WhatIf {self.layer.name!r} at {self.layer.bits_per_weight:.2f} bits per weight: {self.divergence!r}>"

    def cell_summary(self) -> CellSummary:
        """What it does to the predictions, with the layer's bits."""
        summary = self.divergence.cell_summary()
        question = f"What is the effect of {self.layer.name} alone at {self.layer.bits_per_weight:.2f} bits per weight?"
        return replace(summary, question=question)

    @property
    def kl(self) -> float:
        """Mean KL(original ‖ changed), nats per token."""
        return self.divergence.kl

    @property
    def kl_interval(self) -> Interval | None:
        """95 % interval of `kl`, or None: see `workbench.intervals`."""
        return self.divergence.kl_interval

    @property
    def perplexity(self) -> float:
        """Perplexity with the layer changed."""
        return self.divergence.perplexity

    @property
    def perplexity_original(self) -> float:
        """Perplexity of the original model on the same tokens."""
        return self.divergence.perplexity_original

    @property
    def ratio(self) -> PerplexityRatio:
        """The changed perplexity over the original one, paired document by document, with its interval."""
        return self.divergence.ratio

    @property
    def top1_changed(self) -> float:
        """Share of tokens whose likeliest successor changed."""
        return self.divergence.top1_changed


def what_if(
    model: ModelHandle,
    layer: str,
    recipe: Recipe | QuantizedLayer,
    text: Text,
    *,
    tokens: int | None = REPLAY_TOKENS,
    stats: CalibrationStats | None = None,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> WhatIf:
    """Compare a model with and without one layer quantized; the model is as before afterwards.

    Inputs of later layers move, later layers do not: this is the isolated effect. The recipe "none" gives exactly zero. For
    many changes on one text keep a `wb.Replay`, of which this uses one.

    Args:
        model: A model from `wb.open_model`.
        layer: The layer's name, one of `model.layer_names`.
        recipe: What to do to it, or what `wb.quantize` made of it.
        text: A text from `wb.text`.
        tokens: At most so many tokens of it, all where it is None.
        stats: What `wb.calibrate` gives, for recipes that need it.
        on_progress: Called with the windows of text that are read, and all of them.

    Returns:
        The quantized layer and what it does: KL in nats per token, perplexities, share of tokens whose likeliest successor
        changed, with 95 % intervals over documents.

    Raises:
        ModelError: For a layer that does not exist.
        RecipeError: When the recipe needs `stats`.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.mlp.down_proj"
        >>> effect = wb.what_if(model, layer, wb.recipe("rtn", bits=2), wb.text("evaluation"), tokens=128)
        >>> effect.kl > 0, effect.layer.nominal_bits
        (True, 2.0)
    """
    quantized = recipe if isinstance(recipe, QuantizedLayer) else quantize(model, layer, recipe, stats=stats)
    return WhatIf(quantized, Replay(model, text, tokens=tokens).divergence({layer: quantized}, on_progress))
