"""Calibration mixtures: their effect on salient channels, spectra and errors, and the influence of single documents."""

from typing import Any

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure, escape_labels
from workbench.views.theme import Theme

CHANNELS = "Does this mixture find the same salient channels?"
SPECTRUM = "How many directions do the inputs span?"
ERRORS_QUESTION = "How large is the error on each text with this mixture?"
INFLUENCE = "Which documents matter?"
ROUNDING_CHANGE = 1e-6  # a relative change that is rounding
MAX_DOCUMENTS = 12  # documents in the figure; the table has all


def draw_channel_overlaps(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw how far the salient channels under a mixture of texts are those under each text alone, as Jaccard overlaps.

    Args:
        table: The table of `wb.measures.channel_overlaps`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> texts = wb.text("calibration"), wb.text("evaluation")
        >>> sources = wb.measures.read_sources(model, texts, layers=[layer], tokens=256)
        >>> table = wb.measures.channel_overlaps(model, sources, {"calibration": 1, "evaluation": 1}, layer)
        >>> wb.figures.channel_overlaps(table).question
        'Does this mixture find the same salient channels?'
    """
    plot = {
        "data": [_build_horizontal_bars(table["jaccard"], table["source"], "overlap", theme.original, "overlap %{x:.2f}")],
        "layout": _build_bar_layout(theme, "overlap of salient channels (Jaccard)", len(table), xaxis={"range": [0, 1]}),
    }
    least = table.loc[table["jaccard"].idxmin()]
    answer = (
        f"Of the {least['channels']} channels that count as salient, the mixture shares fewest with {least['source']}: "
        f"{least['shared']}, an overlap of {least['jaccard']:.2f}; its channels carry "
        f"{themes.format_percent(least['energy'])} of that text's held-out output energy."
    )
    return Figure(CHANNELS, answer, plot, table)


def draw_input_spectra(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the eigenvalues of the inputs' second moment by rank, the mixture strong, single texts thin.

    Args:
        table: The table of `wb.measures.input_spectra`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> sources = wb.measures.read_sources(model, [wb.text("calibration")], layers=[layer], tokens=256)
        >>> wb.figures.input_spectra(wb.measures.input_spectra(sources, {"calibration": 1}, layer)).question
        'How many directions do the inputs span?'
    """
    traces: list[dict[str, Any]] = []
    for number, (source, lines) in enumerate(table.groupby("source", sort=False)):
        mixture = source == "mixture"
        colour = theme.quantized if mixture else themes.CATEGORIES[number % len(themes.CATEGORIES)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": lines["rank"].tolist(),
                "y": lines["eigenvalue"].clip(lower=1e-12).tolist(),
                "name": source,
                "line": {"color": colour, "width": 4 if mixture else 1.5},
                "hovertemplate": f"{escape_labels(source)}<br>rank %{{x}}: %{{y:.3g}}<extra></extra>",
            }
        )
    plot = {
        "data": traces,
        "layout": themes.build_layout(
            theme,
            x="rank",
            y="eigenvalue (log scale)",
            showlegend=True,
            xaxis=themes.LOGARITHMIC,
            yaxis={"type": "log", "exponentformat": "power"},
        ),
    }
    half = table[table["cumulative"] >= 0.9].groupby("source", sort=False)["rank"].min()
    widest = half.drop("mixture").idxmax()
    answer = (
        f"{half['mixture']} of {table['rank'].max()} directions hold 90 % of the mixture's second moment; of the single texts, "
        f"{widest} spreads over the most, {half[widest]}."
    )
    return Figure(SPECTRUM, answer, plot, table)


def draw_mixture_errors(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the calibrated and the held-out output error of a layer on each text.

    Args:
        table: The table of `wb.measures.mixture_errors`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> sources = wb.measures.read_sources(model, [wb.text("calibration")], layers=[layer], tokens=256)
        >>> table = wb.measures.mixture_errors(model, sources, {"calibration": 1}, layer, wb.recipe("gptq", bits=2))
        >>> wb.figures.mixture_errors(table).question
        'How large is the error on each text with this mixture?'
    """
    plot = {
        "data": [
            _build_horizontal_bars(
                table["calibrated"], table["source"], "calibrated half", theme.original, "calibrated half %{x:.3g}"
            ),
            _build_horizontal_bars(
                table["held_out_error"], table["source"], "held-out half", theme.quantized, "held-out half %{x:.3g}"
            ),
            {
                "type": "scatter",
                "mode": "markers",
                "x": table["own"].tolist(),
                "y": table["source"].tolist(),
                "name": "held out, calibrated on this text only",
                "marker": {"symbol": "diamond-open", "size": 11, "color": theme.text, "line": {"width": 2}},
                "hovertemplate": "this text only %{x:.3g}<extra></extra>",
            },
        ],
        "layout": _build_bar_layout(
            theme, "output error", 2 * len(table), barmode="group", showlegend=True, xaxis={"rangemode": "tozero"}
        ),
    }
    return Figure(ERRORS_QUESTION, _describe_mixture_errors(table), plot, table)


def _describe_mixture_errors(table: pd.DataFrame) -> str:
    """The worst text, and where the mixture costs most beside calibrating on the text itself."""
    worst = table.loc[table["held_out_error"].idxmax()]
    text = f"The largest held-out output error is {themes.format_error(worst['held_out_error'])} on {worst['source']}"
    more = table["held_out_error"] / table["own"] - 1
    if (more.abs() < ROUNDING_CHANGE).all():
        return f"{text}; this recipe does not use the calibration text, so the mixture changes nothing."
    most = more.idxmax()
    beside = "the largest increase from calibrating on the mixture instead of the text itself is on"
    return f"{text}; {beside} {table['source'][most]}: {more[most]:+.0%}."


def draw_document_influence(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw how the held-out error changes without each document, the twelve most influential ones.

    Args:
        table: The table of `wb.measures.document_influence`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> table = wb.measures.document_influence(model, wb.text("calibration"), layer, wb.recipe("gptq", bits=2), tokens=512)
        >>> wb.figures.document_influence(table).question
        'Which documents matter?'
    """
    shown = table.head(MAX_DOCUMENTS)
    labels = pd.Series([f"{line.sample}: {line.begins}" for line in shown.itertuples()])
    colours = [theme.original if change >= 0 else theme.quantized for change in shown["error_change"]]
    bar = _build_horizontal_bars(shown["error_change"], labels, "without it", theme.original, "%{x:+.3g}")
    plot = {
        "data": [bar | {"marker": {"color": colours}}],
        "layout": _build_bar_layout(
            theme, "change of the held-out output error without the document", len(shown), xaxis={"zeroline": True}
        ),
    }
    if (table["error_change"].abs() < ROUNDING_CHANGE).all():
        answer = "No document has an influence: this recipe does not use the calibration text."
        return Figure(INFLUENCE, answer, plot, table)
    helps = int((table["error_change"] > 0).sum())
    first = table.iloc[0]
    verb = "raises" if first["error_change"] > 0 else "lowers"
    answer = (
        f"Of {len(table)} documents, {helps} help: the held-out error rises without them. Leaving out document {first['sample']} "
        f"(“{first['begins']} …”) {verb} it most, by {themes.format_error(abs(first['error_change']))}."
    )
    return Figure(INFLUENCE, answer, plot, table)


def _build_horizontal_bars(values: pd.Series, names: pd.Series, label: str, colour: str, hover: str) -> dict[str, Any]:
    """Horizontal bars, one a name."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": values.astype(float).tolist(),
        "y": names.tolist(),
        "name": label,
        "marker": {"color": colour},
        "hovertemplate": f"%{{y}}<br>{hover}<extra></extra>",
    }


def _build_bar_layout(theme: Theme, x: str, count: int, **more: Any) -> dict[str, Any]:
    """The layout of horizontal bars, the first on top."""
    y = {"type": "category", "autorange": "reversed", "showgrid": False}
    return themes.build_layout(theme, x=x, height=140 + 30 * count, yaxis=y, **more)
