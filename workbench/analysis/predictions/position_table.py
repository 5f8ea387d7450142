"""Damage by position: does a changed model lose more on tokens with a long context before them?"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from workbench import intervals
from workbench.analysis.predictions.divergence import Divergence, Tokens, assign_token_units
from workbench.models.perplexity import compute_paired_ratio, exponentiate

if TYPE_CHECKING:
    import pandas as pd

EDGES = (1, 32, 128, 512, 2048)  # tokens before the scored one at which a range begins; the last is beyond any window
COLUMNS = ["from", "to", "tokens", "perplexity_original", "perplexity", "ratio", "ratio_low", "ratio_high"]


def tabulate_positions(divergence: Divergence) -> "pd.DataFrame":
    """Tabulate both perplexities by how many tokens of context the models had: early tokens of a window and late ones.

    Args:
        divergence: From `wb.compare`.

    Returns:
        One row a range of positions: from, to (tokens before the scored one), tokens, perplexity_original, perplexity, ratio, and
        its 95 % interval ratio_low, ratio_high, paired over documents. A damage that grows with the context has ratios that grow.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> table = wb.measures.position_table(wb.compare(model, model, wb.text("evaluation"), tokens=256))
        >>> table[["from", "to", "tokens", "ratio"]].values.tolist()
        [[1.0, 31.0, 31.0, 1.0], [32.0, 127.0, 96.0, 1.0], [128.0, 511.0, 129.0, 1.0]]
    """
    import pandas as pd

    tokens, rows = divergence.per_token, []
    position, unit = count_context(tokens), assign_token_units(divergence.per_token)
    for first, beyond in pairwise(EDGES):
        inside = (position >= first) & (position < beyond)
        if inside.any():
            rows.append((first, beyond - 1, *_compare_perplexities(tokens, inside, unit)))
    return pd.DataFrame(rows, columns=COLUMNS)


def count_context(tokens: Tokens) -> np.ndarray:
    """How many tokens of its window the models had read before each token, `[tokens]`; windows follow each other."""
    number = np.arange(len(tokens.window))
    starts = np.flatnonzero(np.diff(tokens.window, prepend=tokens.window[0] - 1))
    return number - starts[np.searchsorted(starts, number, side="right") - 1] + 1


def _compare_perplexities(tokens: Tokens, inside: np.ndarray, unit: np.ndarray) -> tuple[float, ...]:
    """Count, both perplexities, and their ratio with its interval, of the tokens `inside`."""
    before, after = tokens.loss_original[inside], tokens.loss[inside]
    _, number = np.unique(unit[inside], return_inverse=True)
    ratio = compute_paired_ratio(intervals.sum_by_unit(np.stack([after - before, np.ones(len(after))], 1), number))
    return (
        int(inside.sum()),
        exponentiate(float(before.mean())),
        exponentiate(float(after.mean())),
        ratio.ratio,
        *intervals.split_interval(ratio.interval),
    )
