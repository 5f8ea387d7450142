"""95 % intervals of measurements on a text: one rule for every perplexity, KL, share and ratio.

What varies is the document: tokens of one document resemble each other, and intervals that take them for independent hold the
value of a longer text in 75 to 92 % of draws. Each document is left out in turn (delete-one jackknife, Tukey 1958) and the
spread is multiplied by Student's t for one degree of freedom less than there are documents. On the built-in model such an
interval of 2, 3, 5 or 10 documents, or of 1,024 tokens, holds the complete text's value in 91 to 99 % of draws; a percentile
bootstrap over the same documents holds it in 52 to 96 %.

A single document is cut into runs of its windows of at least `UNIT_TOKENS` tokens. Of stretches of 768 to 3,072 tokens of the
same text joined into one document, such an interval holds the value of all of it in 92 to 99 % (windows of 511 tokens). That is
a document of many stories; of what another document would give it says nothing. Where there are not two runs there is no
interval: None.
"""

from collections.abc import Callable, Sequence

import numpy as np

UNIT_TOKENS = 256  # tokens: shorter runs of one document resemble their neighbours too much
Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]


def assign_units(documents: Sequence[int] | np.ndarray, windows: Sequence[int] | np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The number of each row's unit, from 0: its document, or its run of windows where all rows are of one document.

    A row has `tokens` tokens; `windows` numbers the windows of a text in their order.
    """
    names, unit = np.unique(documents, return_inverse=True)
    if len(names) > 1:
        return unit
    _, window = np.unique(windows, return_inverse=True)
    runs, size, run = [], 0.0, 0
    for count in np.bincount(window, tokens):
        runs.append(run)
        size += count
        if size >= UNIT_TOKENS:
            size, run = 0.0, run + 1
    last = max(run - (size < UNIT_TOKENS), 0)  # what is left at the end belongs to the run before it
    return np.minimum(runs, last)[window]


def sum_by_unit(columns: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Sums `[units, k]` of the rows `columns [n, k]` over each unit."""
    sums = np.zeros((unit.max() + 1, columns.shape[1]))
    np.add.at(sums, unit, columns)
    return sums


def estimate_interval(sums: np.ndarray, statistic: Statistic) -> Interval | None:
    """The interval of `statistic`, a function of totals `[..., k]`, from the `sums [units, k]`; None for a single unit."""
    from scipy.special import stdtrit

    count = len(sums)
    if count < 2:
        return None
    everything = sums.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, others = float(statistic(everything)), statistic(everything - sums)
    if not np.isfinite([centre, *others]).all():
        return None
    half = float(stdtrit(count - 1, 0.975) * np.sqrt((count - 1) / count * np.square(others - centre).sum()))
    return centre - half, centre + half


def estimate_mean_interval(sums: np.ndarray, column: int = 0) -> Interval | None:
    """The interval of a mean: the sum of `column` over that of the last column, which counts."""
    return estimate_interval(sums, lambda total: total[..., column] / total[..., -1])


def estimate_positive_interval(sums: np.ndarray, column: int = 0, over: int = -1) -> Interval | None:
    """The same of what is never negative, such as a KL, on a logarithmic scale; (0, 0) where all of it is 0."""
    if (sums[:, column] == 0).all():
        return (0.0, 0.0) if len(sums) > 1 else None
    limits = estimate_interval(sums, lambda total: np.log(total[..., column] / total[..., over]))
    if limits is not None:
        return exponentiate_interval(limits)
    plain = estimate_interval(sums, lambda total: total[..., column] / total[..., over])  # some units have none of it
    return None if plain is None else (max(plain[0], 0.0), max(plain[1], 0.0))


def estimate_share_interval(sums: np.ndarray, column: int = 0) -> Interval | None:
    """The same of a share of tokens; as of independent tokens where it is 0 or 1 in every unit."""
    share = estimate_mean_interval(sums, column)
    if share is None:
        return None
    count, total = round(sums[:, column].sum()), round(sums[:, -1].sum())
    return compute_binomial_interval(count, total) if count in (0, total) else (max(share[0], 0.0), min(share[1], 1.0))


def estimate_quantile_interval(values: np.ndarray, unit: np.ndarray, level: float) -> Interval | None:
    """The interval of a quantile of `values [rows]`, whose rows belong to units; None where the sample does not bound it above.

    Woodruff 1952: how far the share of values below the quantile varies between units (at least as far as that of independent
    ones) gives two levels, and the quantiles at these are the ends. The tail of a short text has no upper end.
    """
    below = np.stack([values <= np.quantile(values, level), np.ones(len(values))], 1)
    share = estimate_mean_interval(sum_by_unit(below, unit))
    if share is None:
        return None
    half = max((share[1] - share[0]) / 2, 1.96 * float(np.sqrt(level * (1 - level) / len(values))))
    if level + half >= 1 - 1 / len(values):
        return None
    low, high = np.quantile(values, [max(level - half, 0.0), level + half])
    return float(low), float(high)


def compute_binomial_interval(count: int, total: int) -> Interval:
    """The exact 95 % binomial interval (Clopper, Pearson 1934) of `count` successes in `total` trials; (0, 1) for no trials."""
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    bounds = binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(bounds.low), float(bounds.high)


def compute_paired_share_interval(worsened: int, improved: int, total: int) -> Interval:
    """The 95 % interval of the difference of two shares of the same `total` trials, `improved` and `worsened` of which changed.

    Bonett and Price 2012: one trial is added to both kinds of change, so that it also covers where few or none were seen.
    """
    if not total:
        return -1.0, 1.0
    up, down = (improved + 1) / (total + 2), (worsened + 1) / (total + 2)
    half = 1.959964 * float(np.sqrt((up + down - (up - down) ** 2) / (total + 2)))
    return max(up - down - half, -1.0), min(up - down + half, 1.0)


def exponentiate_interval(limits: Interval | None) -> Interval | None:
    """e to both ends; infinity where that exceeds the float range."""
    if limits is None:
        return None
    with np.errstate(over="ignore"):
        low, high = np.exp(limits)
    return float(low), float(high)


def split_interval(limits: Interval | None) -> Interval:
    """Both ends for a table: NaN where there is no interval."""
    return (float("nan"), float("nan")) if limits is None else limits


def make_interval_columns(name: str, limits: Interval | None) -> dict[str, float]:
    """The same as columns `name`_low and `name`_high."""
    return dict(zip((f"{name}_low", f"{name}_high"), split_interval(limits), strict=True))


def _explain_missing_interval(tokens: int | None = None) -> str:
    """Why there is no interval."""
    size = "" if tokens is None else f" of {tokens:,} token{'' if tokens == 1 else 's'}"
    return f"no interval: one document{size}"


def format_interval(limits: Interval | Sequence[float] | None, tokens: int | None = None, form: str = ".3g") -> str:
    """An interval in words, or why there is none; without brackets."""
    if limits is None or any(end != end for end in limits):
        return _explain_missing_interval(tokens)
    low, high = limits
    return f"95 %: {low:{form}} to {high:{form}}"
