"""Two models continue one prompt, and each also scores the text of the other: where and how strongly they diverge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import pandas as pd
import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.models.language_model import LanguageModel, Reading

TOP = 5  # likeliest tokens kept of each model
END = "‹end›"


@dataclass(frozen=True)
class Candidate:
    """A token that one of the models thought likely, with the probability that each gave it."""

    token: str
    original: float
    quantized: float


@dataclass(frozen=True)
class WrittenToken:
    """One token of a text: its id, what it adds to the text, and what both models expected in its place.

    `kl` = KL(original ‖ quantized) in nats, both having read this text up to here. `candidates` are the five likeliest tokens of
    each model, by the mean of both probabilities.
    """

    id: int
    text: str
    kl: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Writing:
    """What both models have written so far; `done` at the end of both texts."""

    original: tuple[WrittenToken, ...] = ()
    quantized: tuple[WrittenToken, ...] = ()
    done: bool = False

    @property
    def sides(self) -> tuple[tuple[WrittenToken, ...], tuple[WrittenToken, ...]]:
        """Both texts, the original's first."""
        return self.original, self.quantized

    @property
    def fork(self) -> int | None:
        """The first place at which the two differ, or at which one had ended; None where they agree so far."""
        pairs = zip_longest(*([token.id for token in side] for side in self.sides))
        return next((position for position, (a, b) in enumerate(pairs) if a != b), None)

    def table(self) -> pd.DataFrame:
        """One row a place: position (from 1), original, quantized, and both KLs; nothing where a text had ended."""
        return pd.DataFrame(
            [
                (
                    position + 1,
                    a.text if a else None,
                    b.text if b else None,
                    a.kl if a else float("nan"),
                    b.kl if b else float("nan"),
                )
                for position, (a, b) in enumerate(zip_longest(self.original, self.quantized))
            ],
            columns=["position", "original", "quantized", "kl_original", "kl_quantized"],
        )


class Readers:
    """Both models in the midst of one text."""

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        self._readings, self._read = [Reading(model) for model in models], 0

    def after(self, ids: Sequence[int]) -> list[Tensor]:
        """Log-probabilities `[V]` of the next token after `ids`, of each model; `ids` begin with those of the last call."""
        fresh, self._read = torch.tensor([ids[self._read :]]), len(ids)
        return [reading.read(fresh).log_softmax(-1) for reading in self._readings]


def write_together(original: LanguageModel, quantized: LanguageModel, prompt: str, tokens: int = 80) -> Iterator[Writing]:
    """Both models continue `prompt` greedily, at most `tokens` tokens each; yields what is there after every step.

    While the texts agree each model reads them once; after the fork each reads both, its own and the other's (teacher-forced).
    ModelError where the prompt leaves no room or the vocabularies differ.
    """
    models = (original, quantized)
    start = original.encode(prompt).flatten().tolist()
    room = min(model.context for model in models) - len(start)
    if room < 1:
        raise ModelError(f"the prompt has {len(start)} tokens, but the context is {original.context} tokens; shorten it.")
    ids, readers = [list(start), list(start)], [Readers(models), Readers(models)]
    texts: tuple[list[WrittenToken], list[WrittenToken]] = ([], [])
    running = [True, True]
    for _ in range(min(tokens, room)):
        agree = all(running) and ids[0] == ids[1]
        first = readers[0].after(ids[0]) if running[0] else []
        second = first if agree else readers[1].after(ids[1]) if running[1] else []
        for side, expected in enumerate((first, second)):
            if not running[side]:
                continue
            chosen = int(expected[side].argmax())
            running[side] = chosen not in models[side].stops
            if running[side]:
                texts[side].append(_build_written_token(models[side], ids[side], chosen, *expected))
                ids[side].append(chosen)
        if not any(running):
            break
        yield Writing(tuple(texts[0]), tuple(texts[1]))
    left, right = (_finish_text(*pair) for pair in zip(models, ids, texts, strict=True))
    yield Writing(left, right, done=True)


def _finish_text(model: LanguageModel, ids: list[int], tokens: list[WrittenToken]) -> tuple[WrittenToken, ...]:
    """The tokens of a text of `ids` that no token follows: the last one brings the characters that waited for a next one."""
    rest = model.decode(ids)[len(model.settled(ids)) :]
    return (*tokens[:-1], replace(tokens[-1], text=tokens[-1].text + rest)) if tokens else ()


def _build_written_token(model: LanguageModel, before: list[int], chosen: int, p: Tensor, q: Tensor) -> WrittenToken:
    """The token `chosen` after `before`, where the models expected `p` and `q`, log-probabilities `[V]`."""
    if p.shape != q.shape:
        raise ModelError(f"vocabularies of {len(p)} and {len(q)} tokens cannot be compared; compare models of one vocabulary.")
    kl = torch.where(p.isneginf(), torch.zeros_like(p), p.exp() * (p - q)).sum()
    likely = torch.unique(torch.cat([p.topk(min(TOP, len(p))).indices, q.topk(min(TOP, len(q))).indices]))
    likely = likely[torch.argsort(p.exp()[likely] + q.exp()[likely], descending=True)]
    candidates = (Candidate(_decode_token(model, before, int(i)) or END, float(p[i].exp()), float(q[i].exp())) for i in likely)
    text = model.settled([*before, chosen])[len(model.settled(before)) :]
    return WrittenToken(chosen, text, max(float(kl), 0.0), tuple(candidates))


def _decode_token(model: LanguageModel, before: list[int], token: int) -> str:
    """What a token adds to the text; some tokenizers drop the space of a token that stands alone."""
    last = before[-1:]
    return model.decode([*last, token])[len(model.decode(last)) :]


def tabulate_candidates(token: WrittenToken) -> pd.DataFrame:
    """One row a candidate: token, p_original, p_quantized."""
    rows = [(candidate.token, candidate.original, candidate.quantized) for candidate in token.candidates]
    return pd.DataFrame(rows, columns=["token", "p_original", "p_quantized"])
