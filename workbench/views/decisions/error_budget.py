"""Which layers cause a quantized model's error, and which layers should get its bits."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.decisions.error_budget import ErrorBudget
from workbench.intervals import Interval, format_interval
from workbench.views import theme as themes
from workbench.views.figure import BREAK, Figure
from workbench.views.layer_grid import build_block_axis, draw_layer_grid
from workbench.views.theme import Theme

Plot = dict[str, Any]


def draw_error_waterfall(budget: ErrorBudget, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the error budget: KL of every layer alone, with intervals, and of all layers up to it.

    Bars within half precision's noise are grey.

    Args:
        budget: What `wb.error_budget` gives.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=2), layers="*.[01].mlp.down_proj")
        >>> budget = wb.error_budget(wb.Replay(model, wb.text("evaluation"), tokens=128), small)
        >>> wb.figures.error_budget(budget).question
        'Which layers cause the error?'
    """
    table = budget.layers
    places = list(range(len(table)))
    clear = table["significant"].to_numpy(bool)
    bars = [
        _build_layer_bars(table, effects, colour, name, theme)
        for effects, colour, name in (
            (clear, theme.quantized, "this layer alone"),
            (~clear, theme.border, "alone, within the noise"),
        )
        if effects.any()
    ]
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": places,
        "customdata": table["name"].tolist(),
        "y": table["accumulated"].tolist(),
        "name": "this and all earlier layers",
        "line": {"color": theme.original, "width": 2, "shape": "hv"},
        "hovertemplate": "up to %{customdata}<br>KL %{y:.3g}<extra></extra>",
    }
    floor = themes.build_noise_line(places, budget.floor, theme)
    layout = themes.build_layout(
        theme,
        x="block",
        y="KL, nats per token (log scale)",
        height=420,
        showlegend=True,
        yaxis=themes.LOGARITHMIC | {"tickformat": "~g"},
        xaxis=build_block_axis(table),
        bargap=themes.compute_bar_gap(len(places), 0.15),
        barmode="overlay",
    )
    plot = {"data": [*bars, line, floor], "layout": layout}
    return Figure("Which layers cause the error?", _describe_error_waterfall(budget), plot, table)


def _build_layer_bars(table: pd.DataFrame, effects: np.ndarray, colour: str, name: str, theme: Theme) -> Plot:
    """Bars with intervals for some layers, by a mask."""
    chosen = table[effects]
    return {
        "type": "bar",
        "x": np.flatnonzero(effects).tolist(),
        "customdata": chosen["name"].tolist(),
        "y": chosen["kl"].tolist(),
        "name": name,
        "marker": {"color": colour},
        "error_y": themes.build_error_bars(chosen, "kl", theme.muted, thickness=1, width=2),
        "hovertemplate": "%{customdata}<br>KL alone %{y:.3g}<extra></extra>",
    }


def _describe_error_waterfall(budget: ErrorBudget) -> str:
    """Joint KL against the sum of single ones, the worst layer, and how many layers cannot be told from noise."""
    table = budget.layers
    worst, quiet = table.loc[table["kl"].idxmax()], int((~table["significant"].astype(bool)).sum())
    share = worst["kl"] / budget.total if budget.total else 0.0
    silent = f"; {themes.format_count(quiet, 'layer')} within half-precision noise" if quiet else ""
    if len(table) == 1:
        cost = f"{themes.format_error(budget.joint.kl)} {_bracket_interval(budget.joint.kl_interval)} nats per token"
        return f"The one quantized layer, {worst['name']}, costs {cost}{silent}."
    return (
        f"All {themes.format_count(len(table), 'layer')} together cost {themes.format_error(budget.joint.kl)} "
        f"{_bracket_interval(budget.joint.kl_interval)} nats per token, {budget.ratio:.2f} "
        f"{_bracket_interval(budget.ratio_interval, '.2f')} times the sum of single layers "
        f"({themes.format_error(budget.total)}). The worst, {worst['name']}, accounts for "
        f"{themes.format_percent(share)} of that sum{silent}. "
        f"{themes.describe_interval_basis(budget.joint.documents)}"
    )


def draw_interactions(budget: ErrorBudget, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw how much worse two layers are together than apart, for the layers that cost most.

    Args:
        budget: What `wb.error_budget` gives, with pairs.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=2), layers="*.[01].mlp.down_proj")
        >>> budget = wb.error_budget(wb.Replay(model, wb.text("evaluation"), tokens=128), small)
        >>> wb.figures.error_interactions(budget).question
        "Which layers amplify each other's error?"
    """
    pairs = budget.pairs
    table = budget.layers.set_index("name")
    names = [name for name in table.index if name in set(pairs["earlier"]) | set(pairs["later"])]
    short = dict(zip(names, _label_layers(table.loc[names].reset_index()), strict=True))
    grid: list[list[float | None]] = [[None] * len(names) for _ in names]
    for pair in pairs.to_dict("records"):
        grid[names.index(pair["later"])][names.index(pair["earlier"])] = pair["interaction"]
    limit = float(pairs["interaction"].abs().max()) or 1.0
    heat = {
        "type": "heatmap",
        "x": [short[name].replace(" · ", BREAK) for name in names[:-1]],  # in two lines they stand level
        "y": [short[name] for name in names[1:]],
        "z": [row[:-1] for row in grid[1:]],
        "colorscale": themes.DIVERGING,
        "zmin": -limit,
        "zmax": limit,
        "hoverongaps": False,
        "texttemplate": "%{z:.2g}",
        "colorbar": themes.build_colorbar(theme, "joint KL − sum") | {"tickformat": "~g"},
        "hovertemplate": "%{x} and %{y}<br>interaction %{z:.3g} nats per token<extra></extra>",
    }
    layout = themes.build_layout(theme, height=380, xaxis={"tickangle": 0}, yaxis={"autorange": "reversed"})
    return Figure(
        "Which layers amplify each other's error?", _describe_interactions(pairs), {"data": [heat], "layout": layout}, pairs
    )


def _describe_interactions(pairs: pd.DataFrame) -> str:
    """The strongest pair, and how many pairs differ from zero by more than their interval."""
    clear = int(((pairs["interaction_low"] > 0) | (pairs["interaction_high"] < 0)).sum())
    worst = pairs.loc[pairs["interaction"].abs().idxmax()]
    more = "more" if worst["interaction"] > 0 else "less"
    interval = _bracket_interval((worst["interaction_low"], worst["interaction_high"]))
    return (
        f"Of {themes.format_count(len(pairs), 'pair')}, {clear} differ significantly from the sum of their single KLs. "
        f"The largest difference: {worst['earlier']} and {worst['later']} together cost "
        f"{themes.format_error(abs(worst['interaction']))} nats {more} than their sum {interval}."
    )


def draw_bit_plan(table: pd.DataFrame, painted: set[str], *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the stored bits of every layer under a plan, one cell a layer.

    Args:
        table: The table of `wb.allocate`, with the columns block and matrix beside it.
        painted: Names of the layers whose recipe was fixed by hand; a corner of their cell is orange.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> columns = ["name", "block", "matrix", "recipe", "parameters", "bits", "bits_per_weight", "kl"]
        >>> rows = [("first", 0, "q_proj", "4 bits", 100, 400, 4.0, 0.1), ("second", 0, "k_proj", "2 bits", 100, 200, 2.0, 0.2)]
        >>> wb.figures.bit_plan(pd.DataFrame(rows, columns=columns), painted={"first"}).answer
        '1 layer at 4 bits, 1 layer at 2 bits: 3.00 stored bits per weight overall. 1 set by hand.'
    """
    pairs = zip(table["recipe"], table["kl"], strict=True)
    notes = [f"<br>{recipe}<br>KL alone {themes.format_error(kl)}" for recipe, kl in pairs]
    plot = draw_layer_grid(table, "bits_per_weight", None, painted=painted, notes=notes, theme=theme)
    counts = ", ".join(f"{themes.format_count(n, 'layer')} at {recipe}" for recipe, n in table["recipe"].value_counts().items())
    stored = table["bits"].sum() / table["parameters"].sum()
    by_hand = f" {len(painted)} set by hand." if painted else ""
    answer = f"{counts}: {stored:.2f} stored bits per weight overall.{by_hand}"
    return Figure("Which layers get the bits?", answer, plot, table)


def draw_pareto_front(
    curve: pd.DataFrame, uniform: pd.DataFrame, measured: pd.DataFrame, *, theme: Theme = themes.LIGHT
) -> Figure:
    """Draw the predicted KL over the budget of bits, the same recipe for all layers as points, and plans that were measured.

    Args:
        curve: Plans: bits_per_weight, predicted (nats per token).
        uniform: One recipe for all layers: bits_per_weight, predicted, recipe.
        measured: Plans that were measured: bits_per_weight, predicted, kl, kl_low, kl_high; it may be empty.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> curve = pd.DataFrame({"bits_per_weight": [2.0, 4.0], "predicted": [0.5, 0.02]})
        >>> uniform = pd.DataFrame({"bits_per_weight": [3.0], "predicted": [0.2], "recipe": ["3 bits"]})
        >>> measured = pd.DataFrame(columns=["bits_per_weight", "predicted", "kl", "kl_low", "kl_high"])
        >>> wb.figures.pareto(curve, uniform, measured).question
        'How much does each bit reduce the error?'
    """
    traces: list[Plot] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": curve["bits_per_weight"].tolist(),
            "y": curve["predicted"].tolist(),
            "name": "plan, predicted",
            "line": {"color": theme.quantized, "width": 2},
            "hovertemplate": "%{x:.2f} bits: KL %{y:.3g} predicted<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": uniform["bits_per_weight"].tolist(),
            "y": uniform["predicted"].tolist(),
            "text": uniform["recipe"].tolist(),
            "textposition": "top right",
            "textfont": {"color": theme.text, "size": 12},
            "cliponaxis": False,
            "name": "one recipe for all layers, predicted",
            "marker": {"size": 10, "symbol": "circle-open", "color": theme.muted, "line": {"width": 2}},
            "hovertemplate": "%{text}<br>%{x:.2f} bits: KL %{y:.3g} predicted<extra></extra>",
        },
    ]
    if len(measured):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": measured["bits_per_weight"].tolist(),
                "y": measured["kl"].tolist(),
                "name": "measured",
                "marker": {"size": 12, "symbol": "diamond", "color": theme.accent},
                "error_y": themes.build_error_bars(measured, "kl", theme.accent),
                "hovertemplate": "%{x:.2f} bits: KL %{y:.3g} measured<extra></extra>",
            }
        )
    layout = themes.build_layout(
        theme,
        x="stored bits per weight",
        y="KL, nats per token (log scale)",
        height=340,
        showlegend=True,
        yaxis=themes.LOGARITHMIC | {"tickformat": "~g"},
        margin={"l": 64, "r": 150, "t": 24, "b": 48},
    )
    table = pd.concat([curve, uniform, measured], ignore_index=True)
    return Figure(
        "How much does each bit reduce the error?",
        _describe_pareto_front(curve, measured),
        {"data": traces, "layout": layout},
        table,
    )


def _describe_pareto_front(curve: pd.DataFrame, measured: pd.DataFrame) -> str:
    """The prediction's range, and how far off the last measured plan was."""
    first, last = curve.iloc[0], curve.iloc[-1]
    sentence = (
        f"From {first['bits_per_weight']:.2f} to {last['bits_per_weight']:.2f} stored bits the predicted KL (sum over "
        f"single layers) falls from {themes.format_error(first['predicted'])} to "
        f"{themes.format_error(last['predicted'])} nats per token."
    )
    if not len(measured):
        return f"{sentence} Measure a plan to check the prediction."
    latest = measured.iloc[-1]
    interval = _bracket_interval((latest["kl_low"], latest["kl_high"]))
    return (
        f"{sentence} The last measured plan, {latest['bits_per_weight']:.2f} bits, costs {themes.format_error(latest['kl'])} "
        f"{interval}: {latest['kl'] / latest['predicted']:.2f} times its prediction."
    )


def _label_layers(table: pd.DataFrame) -> list[str]:
    """Short names of layers: block and matrix."""
    return [f"{block} · {matrix.rpartition('.')[2]}" for block, matrix in zip(table["block"], table["matrix"], strict=True)]


def _bracket_interval(interval: Interval | None, form: str = ".3g") -> str:
    """A 95 % interval in brackets, or why there is none."""
    return f"({format_interval(interval, form=form)})"
