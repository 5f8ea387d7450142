"""What if one layer were quantized? Its consequence for the model's predictions, with everything else as it was."""

from dataclasses import dataclass

from torch import Tensor, nn

from workbench.analysis.divergence import Divergence, diverge
from workbench.calibration import CalibrationStats
from workbench.kernels.linear import PackedLinear
from workbench.kernels.reference.rounding import rounded_bits
from workbench.models.handle import ModelHandle
from workbench.models.text import Text
from workbench.quantized import QuantizedLayer
from workbench.quantizers import quantize
from workbench.recipe import Recipe

TOKENS = 1024


@dataclass(frozen=True)
class WhatIf:
    """One quantized layer and the divergence it causes; the figures most asked for are repeated here."""

    layer: QuantizedLayer
    divergence: Divergence

    @property
    def kl(self) -> float:
        """Mean KL(original ‖ changed), nats per token."""
        return self.divergence.kl

    @property
    def kl_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of `kl`."""
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
    def top1_changed(self) -> float:
        """Share of tokens whose likeliest successor changed."""
        return self.divergence.top1_changed


def what_if(
    model: ModelHandle,
    layer: str,
    recipe: Recipe | QuantizedLayer,
    text: Text,
    *,
    tokens: int | None = TOKENS,
    stats: CalibrationStats | None = None,
    seed: int = 0,
) -> WhatIf:
    """Quantize `layer` by `recipe` (or take a layer that is quantized already) and compare the model with and without it.

    Nothing else changes and the model is as before afterwards; the recipe "none" gives exactly zero. `stats` are needed where
    the recipe needs calibration. Inputs of later layers move, later layers do not: this is the isolated effect.
    """
    quantized = recipe if isinstance(recipe, QuantizedLayer) else quantize(model, layer, recipe, stats=stats)
    lm, packed = model.language_model(), quantized.packed
    new: Tensor | nn.Module = quantized.weight()
    if rounded_bits(packed):  # then the layer is more than a weight
        new = PackedLinear.instead_of(model.module.get_submodule(layer), packed)

    def changed(ids: Tensor) -> Tensor:
        with model.swapped({layer: new}):
            return lm.logits(ids)

    return WhatIf(quantized, diverge(lm, text, lm.logits, changed, tokens=tokens, seed=seed))
