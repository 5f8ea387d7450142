"""Does restoring the blamed layers remove the fork? The fork finder on many prompts, with random layers as the control."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.predictions.fork import CONTINUATION_TOKENS, ForkFinder
from workbench.analysis.predictions.isolated_effects import Quantized
from workbench.analysis.predictions.sensitivity import Measured
from workbench.errors import ModelError
from workbench.intervals import compute_binomial_interval
from workbench.jobs import run_steps
from workbench.models.handle import ModelHandle
from workbench.models.text import Text
from workbench.seeds import check_seed

if TYPE_CHECKING:
    import pandas as pd

PROMPT_WORDS = 6


def extract_prompts(text: Text, count: int = 20, words: int = PROMPT_WORDS) -> list[str]:
    """Take the first words of the first documents of a text as prompts.

    Args:
        text: A text from `wb.text`.
        count: How many prompts at most.
        words: Words of each.

    Returns:
        The prompts.

    Example:
        >>> import workbench as wb
        >>> wb.measures.fork_prompts(wb.text("evaluation"), count=2, words=4)
        ['Once upon a time', 'Peter had a secret.']
    """
    return [" ".join(document.split()[:words]) for document in text.documents[:count]]


def run_fork_study(
    model: ModelHandle,
    quantized: Quantized,
    prompts: Sequence[str],
    *,
    tokens: int = CONTINUATION_TOKENS,
    seed: int = 0,
    on_progress: Callable[[Measured], None] | None = None,
) -> "pd.DataFrame":
    """Run the fork finder on many prompts: does restoring the blamed layers take the fork away, and do layers drawn by chance?

    Args:
        model: The original model, from `wb.open_model`.
        quantized: What `wb.quantize_model` made, or quantized layers by name.
        prompts: What texts begin with.
        tokens: Tokens that the original writes at most after each.
        seed: Draws the order of the layers that are the control.
        on_progress: Called with a `Measured` after every prompt.

    Returns:
        One row a prompt whose texts part: prompt, fork (position of the first token that differs), kl_fork (nats), blamed (the
        most guilty layer), needed (how many layers the smallest set found has), random (how many it takes in a drawn order),
        delay (how many tokens later the texts part with that set restored) and random_delay (with as many layers drawn; 0: at the
        same token or before). Delays are infinite where the texts no longer part within `tokens`.

    Raises:
        ModelError: Where no layer is quantized, or where the original writes nothing after a prompt.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=1), layers="*.0.*")
        >>> study = wb.measures.fork_study(model, small, ["Once upon a time"], tokens=8)
        >>> study["fork"].tolist(), study["needed"].tolist()
        ([2], [1])
    """
    return run_steps(_run_fork_study_steps(model, quantized, prompts, tokens=tokens, seed=seed), on_progress)


def _run_fork_study_steps(
    model: ModelHandle, quantized: Quantized, prompts: Sequence[str], *, tokens: int = CONTINUATION_TOKENS, seed: int = 0
) -> Generator[Measured, None, "pd.DataFrame"]:
    """The same as a generator that yields a step for each prompt and returns the table, for a job that can be stopped."""
    import pandas as pd

    rows, draw = list[dict[str, Any]](), np.random.default_rng(check_seed(seed, ModelError))
    for index, prompt in enumerate(prompts):
        finder = ForkFinder(model, quantized, prompt, tokens)
        order = [str(name) for name in draw.permutation(list(finder.swaps))]
        if finder.fork is not None:
            guilt = finder.guilty()
            rows.append(
                {
                    "prompt": prompt,
                    "fork": finder.fork,
                    "kl_fork": float(finder.table["kl"][finder.fork - 1]),
                    "blamed": str(finder.blame()["name"][0]),
                    "needed": len(guilt.layers),
                    "random": next(count for count in range(1, len(order) + 1) if _measure_delay(finder, order[:count]) > 0),
                    "delay": _measure_delay(finder, guilt.layers),
                    "random_delay": _measure_delay(finder, order[: len(guilt.layers)]),
                }
            )
        yield Measured(prompt, index, len(prompts))
    columns = ["prompt", "fork", "kl_fork", "blamed", "needed", "random", "delay", "random_delay"]
    return pd.DataFrame(rows, columns=columns)


def _measure_delay(finder: ForkFinder, restored: Iterable[str]) -> float:
    """By how many tokens the fork comes later with these layers restored; 0 where it does not, infinite where it is gone."""
    where = finder.restored(list(restored))
    assert finder.fork is not None
    return float("inf") if where is None else float(max(where - finder.fork, 0))


def tabulate_shares(study: "pd.DataFrame", counts: Iterable[int] = (1, 2, 3, 5, 8)) -> "pd.DataFrame":
    """Tabulate the share of the forks that restoring a few layers takes away, blamed layers beside layers drawn by chance.

    Args:
        study: The table of `wb.measures.fork_study`.
        counts: How many layers are restored at most, one row for each.

    Returns:
        One row for each count: restored, share, share_low, share_high, chance, chance_low, chance_high (95 % binomial intervals),
        forks.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> study = pd.DataFrame({"needed": [1, 1, 2, 4], "random": [3, 5, 6, 6]})  # of four prompts
        >>> wb.measures.fork_shares(study, counts=[1, 4])[["restored", "share", "chance"]].values.tolist()
        [[1.0, 0.5, 0.0], [4.0, 1.0, 0.25]]
    """
    import pandas as pd

    rows = []
    for count in counts:
        row: dict[str, float] = {"restored": count}
        for label, column in (("share", "needed"), ("chance", "random")):
            hits = int((study[column] <= count).sum())
            low, high = compute_binomial_interval(hits, len(study))
            row |= {label: hits / len(study) if len(study) else 0.0, f"{label}_low": low, f"{label}_high": high}
        rows.append({**row, "forks": len(study)})
    return pd.DataFrame(rows)
