"""Saliency of a layer's input channels, by the measures of quantization methods: one number per channel.

A channel is a column of the weight, and the input feature that it meets. Shares are of a measure's sum over all channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.method.coded_basis import is_transformed
from workbench.analysis.method.weight_groups import build_group_map
from workbench.errors import ShapeError, WorkbenchError
from workbench.input_sums import LayerStats
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.splits.fitting.weight_saliency import compute_saliency


@dataclass(frozen=True)
class Measure:
    """One way to say how much a channel matters: `label` for a menu, `thing` for a sentence, `meaning` with its source."""

    label: str
    thing: str
    meaning: str
    needs_stats: bool = True


MEASURES = {
    "column_energy": Measure(
        "weights: column energy",
        "energy of the weights",
        "Σᵢ Wᵢⱼ², the squared norm of the channel's column.",
        needs_stats=False,
    ),
    "column_absmax": Measure(
        "weights: largest",
        "sum of the columns' largest weights",
        "maxᵢ |Wᵢⱼ|, which sets the scale of a whole column.",
        needs_stats=False,
    ),
    "input_absmax": Measure(
        "inputs: largest",
        "sum of the largest inputs",
        "max |xⱼ| on the calibration text, which sets the scale of rounded inputs.",
    ),
    "input_rms": Measure(
        "inputs: rms (AWQ)",
        "sum of the inputs' sizes",
        "√(E xⱼ²). AWQ (arXiv 2306.00978) scales channels by a power of mean |xⱼ|, which this approximates.",
    ),
    "second_moment": Measure(
        "inputs: second moment",
        "second moment of the input",
        "E xⱼ², the diagonal of H, by which GPTQ (arXiv 2210.17323) orders columns.",
    ),
    "output_energy": Measure(
        "weights × inputs (Wanda)",
        "output energy",
        "Σᵢ Wᵢⱼ² · E xⱼ², the squared scores of Wanda (arXiv 2306.11695) added up.",
    ),
    "removal_cost": Measure(
        "cost of removal (OBS, BiLLM)",
        "cost of removing channels",
        "Σᵢ (Wᵢⱼ / Uⱼⱼ)² with H⁻¹ = UᵀU: the error of removing weights after later columns compensate; the metric of "
        "PB-LLM (arXiv 2310.00034) and BiLLM (arXiv 2402.04291).",
    ),
}


def measure(weight: Tensor, stats: LayerStats | None, name: str) -> Tensor:
    """The measure `name` of every channel of `weight [rows, cols]`, float64 `[cols]`.

    WorkbenchError for an unknown measure, or one of the input without `stats`.
    """
    if name not in MEASURES:
        raise WorkbenchError(f"unknown measure {name!r}; choose one of {', '.join(MEASURES)}.")
    if stats is None:
        if MEASURES[name].needs_stats:
            raise WorkbenchError(f"{name} needs calibration; pass stats=wb.calibrate(model, wb.text('calibration'))[layer].")
    elif len(stats.moment) != weight.shape[1]:
        raise ShapeError(f"a second moment of {len(stats.moment)} inputs does not fit {weight.shape[1]} columns.")
    return compute(weight.float(), stats, name).double()


def compute(weight: Tensor, stats: LayerStats | None, name: str) -> Tensor:
    """The measure itself, `[cols]`."""
    if name == "column_energy":
        return weight.square().sum(0, dtype=torch.float64)
    if name == "column_absmax":
        return weight.abs().amax(0)
    assert stats is not None
    power = stats.moment.diagonal().double().clamp(min=0)
    if name == "output_energy":
        return weight.square().sum(0, dtype=torch.float64) * power
    if name == "removal_cost":
        return compute_saliency(weight, stats.moment, "hessian").sum(0, dtype=torch.float64)
    return {"input_absmax": stats.absmax, "input_rms": power.sqrt(), "second_moment": power}[name]


def tabulate_saliency(weight: Tensor, stats: LayerStats | None = None, names: Sequence[str] = tuple(MEASURES)) -> pd.DataFrame:
    """One row a channel: channel, and each of `names` that can be had, as its share of the whole; `stats` are of the input."""
    names = [name for name in names if stats is not None or not MEASURES[name].needs_stats]
    return pd.DataFrame(
        {"channel": range(weight.shape[1])} | {name: compute_shares(measure(weight, stats, name)) for name in names}
    )


def compute_shares(values: Tensor) -> np.ndarray:
    """Values over their sum, float64; all alike where the sum is zero."""
    plain, total = values.double().numpy(), float(values.double().sum())
    return plain / total if total > 0 else np.full(len(plain), 1 / len(plain))


def rank_channels(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Channels by one measure (see `tabulate_saliency`), most first: rank (from 1), channel, share, cumulative_share."""
    ordered = table.sort_values(name, ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(ordered) + 1),
            "channel": ordered["channel"].to_numpy(),
            "share": ordered[name].to_numpy(),
            "cumulative_share": ordered[name].cumsum().to_numpy(),
        }
    )


def tabulate_channel_ranks(table: pd.DataFrame, channels: Sequence[int]) -> pd.DataFrame:
    """How chosen channels rank by every measure of `tabulate_saliency`: channel, measure, share, times (the average), rank."""
    rows = []
    for name in (name for name in MEASURES if name in table):
        places = table[name].rank(ascending=False, method="first").astype(int)
        for channel in channels:
            share = float(table[name][channel])
            rows.append((channel, MEASURES[name].label, share, share * len(table), int(places[channel])))
    return pd.DataFrame(rows, columns=["channel", "measure", "share", "times", "rank"])


def tabulate_channel_errors(
    energy: np.ndarray, rows: int, moment: Tensor, column_errors: np.ndarray | None = None
) -> pd.DataFrame:
    """One row a channel: channel, weight_rms, second_moment and, from the squared errors of each column, error_share.

    `energy [cols]` are sums of squares over `rows` weights, `moment [cols]` is E xⱼ². `error_share` is of the output error as far
    as it comes from each channel alone: Σᵢ (Ŵᵢⱼ − Wᵢⱼ)² · E xⱼ².
    """
    power = moment.double().clamp(min=0).numpy()
    table = pd.DataFrame({"channel": range(len(energy)), "weight_rms": np.sqrt(energy / rows), "second_moment": power})
    if column_errors is not None:
        table["error_share"] = compute_shares(torch.from_numpy(column_errors * power))
    return table


def compute_group_shares(packed: Packed, weight: Tensor) -> tuple[list[str], np.ndarray] | None:
    """Names of the groups of weights in a stored layer, and the share of each channel's weights in each, `[groups, cols]`.

    None where all weights are coded alike, or where they are coded in another basis than the model's channels.
    """
    if is_transformed(packed) or (groups := build_group_map(packed, weight)) is None:
        return None
    names = groups.table["group"].tolist()
    return names, np.stack([(groups.groups == number).mean(0) for number in range(len(names))])
