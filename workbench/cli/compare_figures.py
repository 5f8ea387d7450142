"""Figures of `workbench compare` as JSON and as lines: the tail of the KL, positions in the context, and the fork rate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.cli.output import format_with_interval

if TYPE_CHECKING:
    from workbench.analysis.predictions.divergence import Divergence
    from workbench.analysis.predictions.fork_rate import ForkRate
    from workbench.intervals import Interval

NO_INTERVAL = "no interval: too few tokens"


def collect_report_facts(result: "Divergence") -> dict[str, Any]:
    """The figures that llama-perplexity reports too, beside the mean KL."""
    from workbench.analysis.predictions.kl_report import summarise_kl

    report = summarise_kl(result)
    facts: dict[str, Any] = {"kl_percentiles": {}}
    for name, one in report.kl.items():
        facts["kl_percentiles"][name] = {"value": one.value, "interval": one.interval}
    for key, one in {"p_change_mean": report.p_mean, "p_change_rms": report.p_rms, "same_top": report.same_top}.items():
        facts |= {key: one.value, f"{key}_interval": one.interval}
    return facts


def format_report(row: dict[str, Any]) -> list[str]:
    """The same as lines, without the mean and the likeliest tokens."""
    lines = []
    for name, one in row["kl_percentiles"].items():
        if name == "mean":
            continue
        limits = "" if name == "maximum" else f"  ({_format_limits(one['interval'], '.5f')})"
        lines.append(f"  {f'KL, {name}':<15}  {one['value']:.5f}{limits}")
    return [
        *lines,
        f"  Δp, mean         {format_share(row['p_change_mean'], row['p_change_mean_interval'], '+.3%')}",
        f"  Δp, RMS          {format_share(row['p_change_rms'], row['p_change_rms_interval'], '.3%')}",
    ]


def collect_position_facts(result: "Divergence") -> list[dict[str, Any]]:
    """Both perplexities by position in the context."""
    from workbench.analysis.predictions.position_table import tabulate_positions

    return [{str(name): value for name, value in row.items()} for row in tabulate_positions(result).to_dict("records")]


def format_positions(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The ratio of perplexities in each range of positions; nothing where there is only one."""
    if len(rows) < 2:
        return []
    lines = []
    for row in rows:
        limits = None if row["ratio_low"] != row["ratio_low"] else (row["ratio_low"], row["ratio_high"])
        value = format_with_interval(row["ratio"], limits, int(row["tokens"]))
        reach = f"  after {row['from']}–{row['to']}"
        lines.append(f"  {reach:<15}  {value}")
    return ["  ratio by tokens read before", *lines]


def collect_fork_rate_facts(forks: "ForkRate") -> dict[str, Any]:
    """How often and how soon texts part."""
    return {
        "texts": len(forks.forks),
        "tokens": forks.tokens,
        "share": forks.share,
        "share_interval": forks.share_interval,
        "agreed": forks.mean_agreed,
        "agreed_interval": forks.mean_agreed_interval,
        "forks": list(forks.forks),
    }


def format_fork_rate(facts: dict[str, Any]) -> list[str]:
    """The same as lines."""
    count = sum(fork is not None for fork in facts["forks"])
    limits = _format_limits(facts["share_interval"], ".0%")
    agreed = _format_limits(facts["agreed_interval"], ".1f")
    return [
        f"  fork rate        {count} of {facts['texts']} texts within {facts['tokens']} tokens  ({limits})",
        f"  agree on         {facts['agreed']:.1f} tokens before the fork  ({agreed})",
    ]


def format_share(value: float, limits: "Interval | None", form: str = ".2%") -> str:
    """A share in percent with its interval."""
    return f"{value:{form}}  ({_format_limits(limits, form)})"


def _format_limits(limits: "Interval | None", form: str) -> str:
    """An interval in words, or that there is none."""
    from workbench.intervals import format_interval

    return NO_INTERVAL if limits is None else format_interval(limits, form=form)
