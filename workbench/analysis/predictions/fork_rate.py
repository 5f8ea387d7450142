"""How often, and how soon, greedy texts of a changed model depart from the original's: damage that likelihood does not show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from workbench import intervals
from workbench.analysis.predictions.compare import Readable, get_language_model
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ModelError
from workbench.intervals import Interval
from workbench.models.language_model import LanguageModel

if TYPE_CHECKING:
    import pandas as pd

FORK_TOKENS = 50


@dataclass(frozen=True)
class GreedyText:
    """What a model writes greedily after a prompt: the prompt's ids `[1, T]` and the ids that follow."""

    prompt: Tensor
    written: tuple[int, ...]


@dataclass(frozen=True)
class ForkRate(ShownInCell):
    """Where the texts of two models part, one entry a prompt: the first token that differs, from 1, or None within `tokens`.

    A text that one model ends and the other continues parts there. `agreed` counts the tokens before the fork, or all that were
    compared.
    """

    prompts: tuple[str, ...]
    forks: tuple[int | None, ...]
    agreed: tuple[int, ...]
    tokens: int

    @property
    def share(self) -> float:
        """Share of the texts that part within `tokens` tokens."""
        return sum(fork is not None for fork in self.forks) / len(self.forks)

    @property
    def share_interval(self) -> Interval:
        """Its exact 95 % binomial interval over prompts."""
        return intervals.compute_binomial_interval(sum(fork is not None for fork in self.forks), len(self.forks))

    @property
    def mean_agreed(self) -> float:
        """Tokens on which the texts agree before they part, on average; of texts that do not part, all that were compared."""
        return float(np.mean(self.agreed))

    @property
    def mean_agreed_interval(self) -> Interval | None:
        """Its 95 % interval over prompts; None for a single one."""
        limits = intervals.estimate_mean_interval(np.stack([self.agreed, np.ones(len(self.agreed))], 1))
        return None if limits is None else (max(limits[0], 0.0), min(limits[1], float(self.tokens)))

    def table(self) -> "pd.DataFrame":
        """One row a prompt: prompt, fork, agreed."""
        import pandas as pd

        forks = [float("nan") if fork is None else fork for fork in self.forks]
        return pd.DataFrame({"prompt": self.prompts, "fork": forks, "agreed": self.agreed})

    def cell_summary(self) -> CellSummary:
        """How many part, and where."""
        count = sum(fork is not None for fork in self.forks)
        limits = intervals.format_interval(self.share_interval, form=".0%")
        answer = f"{count} of {len(self.forks)} texts part within {self.tokens} tokens ({limits})."
        rows = [(prompt, "no fork" if fork is None else str(fork)) for prompt, fork in zip(self.prompts, self.forks, strict=True)]
        return CellSummary("How often do the texts part?", answer, ("prompt", "first token that differs"), rows)


def write_greedy_texts(
    lm: LanguageModel,
    prompts: Sequence[str],
    tokens: int = FORK_TOKENS,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> list[GreedyText]:
    """The greedy continuation of each prompt, at most `tokens` tokens or what the context leaves room for."""
    texts = []
    for number, prompt in enumerate(prompts, 1):
        ids = lm.encode(prompt)
        if ids.shape[1] >= lm.context:
            size = f"{ids.shape[1]} tokens, but the context is {lm.context}"
            raise ModelError(f"the prompt {prompt[:40]!r} has {size} tokens; shorten it.")
        texts.append(GreedyText(ids, tuple(lm.new_tokens(ids, min(tokens, lm.context - ids.shape[1])))))
        on_progress(number, len(prompts))
    return texts


def measure_forks(
    original: Readable | LanguageModel,
    changed: Readable | LanguageModel,
    prompts: Sequence[str],
    *,
    tokens: int = FORK_TOKENS,
    texts: Sequence[GreedyText] | None = None,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> ForkRate:
    """Let both models continue prompts greedily, and find the first token of each text that differs.

    Args:
        original: The model to compare with, from `wb.open_model` or anything that reads text.
        changed: The changed model, of the same tokenizer.
        prompts: What texts begin with, for example from `wb.measures.fork_prompts`.
        tokens: At most so many tokens of each text.
        texts: What `write_greedy_texts` wrote with the original, so that several models are compared with the same texts.
        on_progress: Called with the prompts that are done, and all of them.

    Returns:
        The fork of each prompt, the share of texts that part and how many tokens they agree on, with 95 % intervals over prompts.

    Raises:
        ModelError: Without a prompt, without tokens, and where a prompt fills the context.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> rate = wb.measures.fork_rate(model, model, ["Once upon a time", "Tom had"], tokens=8)
        >>> rate.share, rate.forks
        (0.0, (None, None))
    """
    if not prompts or tokens < 1:
        raise ModelError(f"{len(prompts)} prompts of {tokens} tokens each; give one or more prompts, and one or more tokens.")
    first, second = get_language_model(original), get_language_model(changed)
    forks, agreed = list[int | None](), list[int]()
    for number, prompt in enumerate(prompts):
        on_progress(number, len(prompts))
        text = texts[number] if texts is not None else write_greedy_texts(first, [prompt], tokens)[0]
        fork = _find_fork(text, second, tokens)
        forks.append(fork)
        agreed.append(len(text.written) if fork is None else fork - 1)
    on_progress(len(prompts), len(prompts))
    return ForkRate(tuple(prompts), tuple(forks), tuple(agreed), tokens)


def _find_fork(text: GreedyText, lm: LanguageModel, tokens: int) -> int | None:
    """The first token at which a model departs from a text, from 1; it stops writing there."""
    room = min(tokens, lm.context - text.prompt.shape[1])
    pairs = zip_longest(text.written, lm.new_tokens(text.prompt, room))
    return next((position for position, (a, b) in enumerate(pairs, 1) if a != b), None)
