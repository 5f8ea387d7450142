"""The figures that readers of llama.cpp know: mean, percentiles and maximum of the KL, and changes of the true token's share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench import intervals
from workbench.analysis.predictions.divergence import Divergence, assign_token_units, sum_tokens_by_unit
from workbench.cell_display import CellSummary, ShownInCell
from workbench.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "99.9 %": 0.999}


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, None where the text does not give one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class KLReport(ShownInCell):
    """How far predictions are from the original's, as llama-perplexity reports it, with intervals over documents.

    `kl` has the entries mean, median, 90 %, 99 %, 99.9 % and maximum, in nats per token. `p_mean` and `p_rms` are the mean and
    the root mean square of the change of the true token's probability, `same_top` is the share of tokens whose likeliest
    successor stayed.
    """

    kl: dict[str, Estimate]
    p_mean: Estimate
    p_rms: Estimate
    same_top: Estimate
    tokens: int
    text: str

    def table(self) -> "pd.DataFrame":
        """One row a figure: figure, value, value_low, value_high."""
        import pandas as pd

        rows = [
            {"figure": name, "value": one.value, **intervals.make_interval_columns("value", one.interval)}
            for name, one in self.figures.items()
        ]
        return pd.DataFrame(rows)

    @property
    def figures(self) -> dict[str, Estimate]:
        """All of them by name."""
        tail = {f"KL, {name}": one for name, one in self.kl.items()}
        return tail | {"Δp, mean": self.p_mean, "Δp, RMS": self.p_rms, "top-1 agreement": self.same_top}

    def cell_summary(self) -> CellSummary:
        """The figures with their intervals."""
        rows = [
            (name, f"{one.value:.4g}", intervals.format_interval(one.interval, form=".4g") if one.interval else "no interval")
            for name, one in self.figures.items()
        ]
        answer = f"{self.tokens:,} tokens of {self.text!r}; KL in nats per token."
        return CellSummary("How far are the predictions from the original's?", answer, ("figure", "value", "95 %"), rows)


def summarise_kl(divergence: Divergence) -> KLReport:
    """Summarise a comparison as llama-perplexity does.

    Args:
        divergence: From `wb.compare`, or from `wb.measures.base_divergence`.

    Returns:
        Mean, percentiles and maximum of the KL, the change of the true token's probability, and how often the likeliest token
        stayed. The maximum has no interval, and a percentile has none where the text has too few tokens beyond it.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> report = wb.measures.kl_report(wb.compare(model, model, wb.text("evaluation"), tokens=256))
        >>> report.kl["99 %"].value, report.p_rms.value, report.same_top.value
        (0.0, 0.0, 1.0)
    """
    tokens = divergence.per_token
    kl = {"mean": Estimate(divergence.kl, divergence.kl_interval)}
    unit = assign_token_units(tokens)
    for name, level in PERCENTILES.items():
        limits = intervals.estimate_quantile_interval(tokens.kl, unit, level)
        kl[name] = Estimate(float(np.quantile(tokens.kl, level)), limits)
    kl["maximum"] = Estimate(float(tokens.kl.max()), None)
    change = np.exp(-tokens.loss) - np.exp(-tokens.loss_original)
    sums = sum_tokens_by_unit(tokens, np.stack([change, np.square(change)], 1))
    squares = intervals.estimate_positive_interval(sums, 1)
    return KLReport(
        kl,
        p_mean=Estimate(float(change.mean()), intervals.estimate_mean_interval(sums)),
        p_rms=Estimate(float(np.sqrt(np.square(change).mean())), _take_roots(squares)),
        same_top=Estimate(divergence.top1_agreement, divergence.top1_agreement_interval),
        tokens=divergence.tokens,
        text=divergence.text,
    )


def _take_roots(limits: Interval | None) -> Interval | None:
    """The square roots of both ends."""
    return None if limits is None else (float(np.sqrt(limits[0])), float(np.sqrt(limits[1])))
