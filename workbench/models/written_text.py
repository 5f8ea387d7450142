"""Text that a model writes itself: what it predicts well, whatever it was calibrated on."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench import store as stores
from workbench.errors import ModelError
from workbench.jobs import run_steps
from workbench.models.forward import build_cache_kwargs, find_cache_argument, translate_run_errors
from workbench.models.text import Text
from workbench.seeds import check_seed
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.models.handle import ModelHandle

LENGTH = 384  # tokens of a document at most
ROWS = 64  # documents written at once


def write_text(model: "ModelHandle", tokens: int, *, seed: int = 0, store: Store | None = None) -> Text:
    """Let a model write documents from its first token on, each token drawn from what it predicts.

    Args:
        model: A model from `wb.open_model`.
        tokens: At least so many tokens in all.
        seed: Draws the tokens.
        store: Where the text is kept, so that the same call reads it from there.

    Returns:
        The documents, up to 384 tokens each.

    Raises:
        ModelError: Where the model writes no text, or its tokenizer has no token that a text begins with.

    Example:
        >>> import workbench as wb
        >>> wb.measures.write_text(wb.open_model("builtin"), 200).name
        'written by builtin'
    """
    return run_steps(write_text_steps(model, tokens, seed=seed, store=store))


def write_text_steps(
    model: "ModelHandle", tokens: int, *, seed: int = 0, store: Store | None = None
) -> Generator[int, None, Text]:
    """The same as a generator that yields how many tokens are written, for a job that can be stopped."""
    check_seed(seed, ModelError)
    if tokens < 1:
        raise ModelError(f"{tokens} tokens to write; use 1 or more.")
    key = stores.compute_key({"model": model.fingerprint, "tokens": tokens, "seed": seed, "length": LENGTH}, "written text")
    entry = store.get(key) if store is not None else None
    if entry is None:
        documents = yield from _write_documents(model, tokens, seed)
        if store is not None:
            what = f"{tokens:,} tokens by {model.source}"
            store.put(key, {}, {"documents": documents}, kind="written text", what=what)
    else:
        documents = entry.facts["documents"]
    return Text(f"written by {model.source}", tuple(documents))


def _write_documents(model: "ModelHandle", tokens: int, seed: int) -> Generator[int, None, list[str]]:
    """Documents of at least `tokens` tokens together."""
    language, first = model.language_model(), _find_first_token(model)
    generator, documents, written = torch.Generator().manual_seed(seed), list[str](), 0
    length = min(LENGTH, model.context)
    while written < tokens:
        rows = min(ROWS, -(-(tokens - written) // length))
        ids = yield from _draw_tokens(model, torch.full((rows, 1), first), length, generator, written)
        for row in ids.tolist():
            end = next((i for i, token in enumerate(row) if i and token in language.stops), len(row))
            written += end
            if text := language.decode(row[:end]).strip():
                documents.append(text)
    return documents


def _draw_tokens(
    model: "ModelHandle", ids: Tensor, length: int, generator: torch.Generator, written: int
) -> Generator[int, None, Tensor]:
    """Token ids `[rows, length]` that begin with `ids [rows, 1]`; rows that have ended are cut by the caller."""
    module, columns, cache = model.module, [ids], None
    argument, kwargs = find_cache_argument(module), build_cache_kwargs(module, use_cache=True)
    for count in range(1, length):
        cached: dict[str, Any] = {} if argument is None or cache is None else {argument: cache}
        read = columns[-1] if argument is not None else torch.cat(columns, 1)
        with model.lock, torch.inference_mode(), translate_run_errors(model.source):
            out = module(read, **kwargs, **cached)
        cache = None if argument is None else getattr(out, argument)
        columns.append(torch.multinomial(out.logits[:, -1].float().softmax(-1), 1, generator=generator))
        yield written + count * len(ids)
    return torch.cat(columns, 1)


def _find_first_token(model: "ModelHandle") -> int:
    """The token that a text begins with; ModelError where the tokenizer has none."""
    for token in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(f"the tokenizer of {model.source!r} has no token that a text begins with, so the model cannot write one.")
