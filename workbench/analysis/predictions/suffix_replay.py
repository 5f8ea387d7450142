"""Suffix replay: the effect of a changed layer on predictions, without running the layers before it again.

Hidden states after every block are kept for one text; a swap runs from the earliest changed block to the logits.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from workbench.analysis.predictions.divergence import Divergence, join_windows, score, summarise
from workbench.analysis.predictions.isolated_effects import build_replacement
from workbench.models.boundaries import Boundaries, Swap
from workbench.models.handle import ModelHandle
from workbench.models.perplexity import iterate_spans, show_spans
from workbench.models.text import Text
from workbench.quantized import QuantizedLayer

REPLAY_TOKENS = 2048  # of which a change of the built-in model's first block is replayed in half a second

Change = Swap | QuantizedLayer


class Replay:
    """Keep a model's hidden states on a text, ready to run again from the first changed layer.

    Logits of the whole vocabulary are never kept: the original's are made again from its last hidden states, window by
    window. `bytes` is the memory of what is kept: (blocks + 1) × tokens × width × 4.

    Args:
        model: A model from `wb.open_model`.
        text: A text from `wb.text`.
        tokens: At most so many tokens of it, all where it is None.

    Raises:
        ModelError: For a model that writes no text.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.mlp.down_proj"
        >>> replay = wb.Replay(model, wb.text("evaluation"), tokens=128)
        >>> replay.divergence({}).kl
        0.0
        >>> replay.divergence({layer: 0 * model.weight(layer).float()}).kl > 0.01
        True
    """

    def __init__(self, model: ModelHandle, text: Text, *, tokens: int | None = REPLAY_TOKENS) -> None:
        self.model, self.text = model, text
        self.spans = tuple(iterate_spans(model.language_model(), text, tokens))
        self.boundaries = Boundaries(model, (span.window for span in self.spans))

    @property
    def bytes(self) -> int:
        """Memory of the kept hidden states."""
        return self.boundaries.bytes

    def divergence(
        self, changes: Mapping[str, Change], on_progress: Callable[[float, float], None] = lambda *_: None
    ) -> Divergence:
        """The changed model compared with the original on the text; nothing changed is exactly zero.

        A change is a weight `[rows, cols]`, a module, a quantized layer, or None for the layer as it is; parameters beside the
        layers' weights go by their own names. `applied` makes changes of a whole quantized model. The model is as before
        afterwards. `on_progress` is told `(windows read, windows)`. Raises ModelError for an unknown name, ShapeError for a
        wrong shape.
        """
        swaps = {name: self._swap(name, change) for name, change in changes.items()}
        return self._compare(lambda index: self.boundaries.logits(index, swaps), on_progress)

    @cached_property
    def noise(self) -> Divergence:
        """What half precision alone does: the original model computed in bfloat16. No change below it means anything."""
        changes = dict.fromkeys(self.model.layer_names)

        def half(index: int) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.boundaries.logits(index, changes)

        return self._compare(half)

    def _swap(self, name: str, change: Change) -> Swap:
        return build_replacement(self.model, name, change) if isinstance(change, QuantizedLayer) else change

    def _compare(
        self, changed: Callable[[int], Tensor], on_progress: Callable[[float, float], None] = lambda *_: None
    ) -> Divergence:
        """The original and the logits of every window by its number."""
        scored = (
            score(span.document, span.window, self.boundaries.logits(index), changed(index))
            for index, span in enumerate(show_spans(self.spans, on_progress))
        )
        return summarise(join_windows(scored), self.text.name)
