"""Two models on the same text: the divergence of their next-token distributions."""

from collections.abc import Callable
from typing import Protocol

from workbench.analysis.predictions.divergence import Divergence, measure_divergence
from workbench.errors import ModelError
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text


class Readable(Protocol):
    """What can be read as a language model: an opened model, or a quantized one that was loaded."""

    def language_model(self) -> LanguageModel:
        """The model as something that reads and writes text."""


def compare(
    original: Readable | LanguageModel,
    other: Readable | LanguageModel,
    text: Text,
    *,
    tokens: int | None = None,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> Divergence:
    """Compare the next-token predictions of two models on a text; a model compared with itself gives exactly zero.

    Args:
        original: The model to compare with: from `wb.open_model`, or anything that reads text.
        other: The changed model, from `wb.load` or `wb.pack_model`; both must cut text into the same tokens.
        text: A text from `wb.text`.
        tokens: At most so many tokens of it, all when absent.
        on_progress: Called with the windows of text that are read, and all of them.

    Returns:
        KL(original ‖ other) in nats per token, top-1 agreement and both perplexities, with 95 % intervals over documents.

    Raises:
        ModelError: Where the two do not share a tokenizer and a context length.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> wb.compare(model, model, wb.text("evaluation"), tokens=256).kl
        0.0
    """
    first, second = get_language_model(original), get_language_model(other)
    check_tokens(first, second, text)
    return measure_divergence(first, text, first.logits, second.logits, tokens=tokens, on_progress=on_progress)


def get_language_model(model: Readable | LanguageModel) -> LanguageModel:
    """The language model itself."""
    return model if isinstance(model, LanguageModel) else model.language_model()


def check_tokens(first: LanguageModel, second: LanguageModel, text: Text) -> None:
    """Raise ModelError unless both read the first document as the same tokens."""
    ids, others = first.encode(text.documents[0]), second.encode(text.documents[0])
    if ids.tolist() != others.tolist():
        raise ModelError(
            f"{first.name!r} reads the first document of {text.name!r} as {ids.shape[1]} tokens, "
            f"{second.name!r} as {others.shape[1]} or other ones; compare models that share a tokenizer."
        )
    if first.context != second.context:
        both = f"{first.name!r} reads {first.context} tokens at once, {second.name!r} {second.context}"
        raise ModelError(f"{both}; compare models with the same context length.")
