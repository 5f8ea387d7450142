"""Suffix replay: what a changed layer does to predictions, without running again what comes before it.

Hidden states after every block are kept for one text; a swap runs from the earliest changed block to the logits.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from workbench.analysis.divergence import Divergence, Tokens, score, summarise
from workbench.kernels.linear import PackedLinear
from workbench.kernels.reference.rounding import rounded_bits
from workbench.models.boundaries import Boundaries, Swap
from workbench.models.handle import ModelHandle
from workbench.models.perplexity import spans
from workbench.models.text import Text
from workbench.quantized import QuantizedLayer

TOKENS = 1024

Change = Swap | QuantizedLayer


class Replay:
    """A model on `tokens` tokens of `text`, ready to be run again with layers changed.

    Logits of the whole vocabulary are never kept: the original's are made again from its last hidden states, window by
    window. `bytes` is the memory of what is kept: blocks × tokens × width × 4.
    """

    def __init__(self, model: ModelHandle, text: Text, *, tokens: int | None = TOKENS, seed: int = 0) -> None:
        self.model, self.text, self.seed = model, text, seed
        self.spans = tuple(spans(model.language_model(), text, tokens))
        self.boundaries = Boundaries(model, (span.window for span in self.spans))

    @property
    def bytes(self) -> int:
        """Memory of the kept hidden states."""
        return self.boundaries.bytes

    def divergence(self, changes: Mapping[str, Change]) -> Divergence:
        """The changed model compared with the original on the text; nothing changed is exactly zero.

        A change is a weight `[rows, cols]`, a module, a quantized layer, or None for the layer as it is. The model is as
        before afterwards. Raises ModelError for an unknown layer, ShapeError for a wrong shape.
        """
        swaps = {name: swap_of(self.model, name, change) for name, change in changes.items()}
        rows = []
        for index, span in enumerate(self.spans):
            original, changed = self.boundaries.logits(index), self.boundaries.logits(index, swaps)
            rows.append(score(span.document, span.window, original, changed))
        return summarise(Tokens(*(np.concatenate(column) for column in zip(*rows, strict=True))), self.text.name, self.seed)


def swap_of(model: ModelHandle, layer: str, change: Change) -> Tensor | nn.Module | None:
    """What takes the layer's place in the module: a weight, or a packed layer where its inputs are rounded too."""
    if not isinstance(change, QuantizedLayer):
        return change
    if rounded_bits(change.packed):  # then the layer is more than a weight
        return PackedLinear.instead_of(model.module.get_submodule(layer), change.packed)
    return change.weight()
