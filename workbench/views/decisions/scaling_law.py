"""Expected and measured loss at each bit width, and the findings of published studies."""

import html

import pandas as pd

from workbench.analysis.decisions.scaling_law import STUDIES, UNDERTRAINED, Study, format_large_number
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

LOSS_QUESTION = "How sensitive should this model be to quantization?"


def draw_added_loss(expected: pd.DataFrame, measured: pd.DataFrame, outside: str, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the loss that a scaling law expects at each number of bits as a line, and what was measured as points.

    Args:
        expected: The table of `wb.measures.expected_losses`.
        measured: The table of `wb.measures.measured_losses`.
        outside: What of this model the law was not fitted on, in words (`UNDERTRAINED.outside`); empty where nothing is.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> expected = wb.measures.expected_losses(count=1e9, tokens=1e11)
        >>> stops = pd.DataFrame({"recipe": ["none", "rtn"], "bits_per_weight": [16.0, 4.0], "perplexity": [8.0, 8.5]})
        >>> wb.figures.added_loss(expected, wb.measures.measured_losses(stops), "").answer.partition("; ")[0]
        'The scaling law expects 0.046 nats per token of added loss at 4 bits and 2.07 at 2'
    """
    positive = measured[measured["added_loss"] > 0]
    plot = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": expected["bits"].tolist(),
                "y": expected["added_loss"].tolist(),
                "name": "expected by the scaling law",
                "line": {"color": theme.original, "width": 2, "dash": "dash"},
                "hovertemplate": "%{x} bits: %{y:.3g} nats expected<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": positive["bits_per_weight"].tolist(),
                "y": positive["added_loss"].tolist(),
                "text": positive["recipe"].tolist(),
                "name": "measured here",
                "marker": {"size": 12, "color": theme.quantized},
                "hovertemplate": "%{text}<br>%{x:.2f} stored bits: %{y:.3g} nats<extra></extra>",
            },
        ],
        "layout": themes.build_layout(
            theme,
            x="bits per weight",
            y="added loss, nats per token (log scale)",
            height=400,
            showlegend=True,
            yaxis={"type": "log", "dtick": 1, "exponentformat": "power"},
        ),
    }
    table = pd.concat(
        [
            expected.rename(columns={"bits": "bits_per_weight"}).assign(recipe="expected by the scaling law"),
            measured.assign(recipe=measured["recipe"].astype(str)),
        ],
        ignore_index=True,
    )[["recipe", "bits_per_weight", "added_loss", "ratio"]]
    return Figure(LOSS_QUESTION, _describe_added_loss(expected, measured, outside), plot, table)


def _describe_added_loss(expected: pd.DataFrame, measured: pd.DataFrame, outside: str) -> str:
    """The law at 4 and 2 bits, what was measured nearest to 2 bits, and how far the law may be trusted."""
    at = expected.set_index("bits")["added_loss"]
    at_4, at_2 = themes.format_error(at[4.0]), themes.format_error(at[2.0])
    text = f"The scaling law expects {at_4} nats per token of added loss at 4 bits and {at_2} at 2"
    if len(measured):
        near = measured.loc[(measured["bits_per_weight"] - 2).abs().idxmin()]
        text += f"; measured here: {themes.format_error(near['added_loss'])} at {near['bits_per_weight']:.2f} stored bits"
    if outside:
        low, high = UNDERTRAINED.parameters
        text += (
            f". It was fitted on {format_large_number(low)} to {format_large_number(high)} parameters; {outside} lie "
            "outside this range, so this is an extrapolation"
        )
    return f"{text}."


def render_studies(collected: tuple[Study, ...] = STUDIES) -> str:
    """The studies as HTML: title, arXiv id, what was found, how far it was checked."""
    items = "".join(
        f"<li><b>{html.escape(study.title)}</b> (arXiv {html.escape(study.arxiv)}). {html.escape(study.finding)} "
        f"<small>{html.escape(study.checked)}</small></li>"
        for study in collected
    )
    return (
        f"<h2 style='font-size:1.15rem;margin:8px 0 0'>What did published studies find?</h2><ul style='margin:4px 0'>{items}</ul>"
    )
