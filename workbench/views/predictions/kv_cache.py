"""Key-value caches: perplexity against bytes per token, one point per scheme."""

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

SIZE_QUESTION = "How small can the cache be?"


def draw_perplexity_by_bytes(table: pd.DataFrame, original: float, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the perplexity of each cache scheme over the bytes that a token takes, and the original's perplexity as a line.

    Bars are the 95 % interval of the ratio to the original, text by text: what makes a text hard for both drops out.

    Args:
        table: The table of `wb.measures.cache_table`.
        original: Perplexity with the whole cache.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> result = wb.measure_cache(wb.open_model("builtin"), "kivi:bits=4", wb.text("evaluation"), tokens=128)
        >>> table = wb.measures.cache_table([result])
        >>> wb.figures.perplexity_against_bytes(table, result.divergence.perplexity_original).question
        'How small can the cache be?'
    """
    ranks = table["bytes_per_token"].rank(method="first", ascending=False).astype(int)
    plot = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": table["bytes_per_token"].tolist(),
                "y": table["perplexity"].tolist(),
                "text": table["scheme"].tolist(),
                "textposition": ["top left" if rank == 1 else ("bottom right", "top right")[rank % 2] for rank in ranks],
                "textfont": {"size": 12, "color": theme.text},
                "marker": {"size": 12, "color": theme.quantized, "line": {"color": theme.surface, "width": 1}},
                "error_y": themes.build_error_bars(table, "ratio", theme.muted, scale=original, thickness=1),
                "hovertemplate": "%{text}<br>%{x:,.0f} bytes per token, perplexity %{y:.3f}<extra></extra>",
                "cliponaxis": False,
            }
        ],
        "layout": themes.build_layout(
            theme,
            x="bytes per token, including the newest tokens in fp16 (log scale)",
            y="perplexity (bars: 95 % of the ratio)",
            height=420,
            showlegend=False,
            xaxis=themes.LOGARITHMIC,
            shapes=[
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": original,
                    "y1": original,
                    "line": {"color": theme.original, "width": 2, "dash": "dash"},
                }
            ],
        ),
    }
    return Figure(SIZE_QUESTION, _describe_smallest_cache(table, original), plot, table)


def _describe_smallest_cache(table: pd.DataFrame, original: float) -> str:
    """The smallest cache within 2 % of the original's perplexity."""
    near = table[table["perplexity"] <= 1.02 * original]
    start = f"With the uncompressed cache, the model has perplexity {original:.2f} on these tokens"
    drawn = themes.describe_interval_basis(int(table["texts"].iloc[0]))
    if near.empty:
        return f"{start}; no scheme here comes within 2 % of that. {drawn}"
    best = near.loc[near["bytes_per_token"].idxmin()]
    times = themes.format_paired_ratio(best, "the original")
    return (
        f"{start}; the smallest cache within 2 % of that is {best['scheme']}: {best['bytes_per_token']:,.0f} bytes per token, "
        f"{best['bits_per_value']:.2f} bits per value stored ({best['nominal_bits']:.2f} nominal), "
        f"perplexity {best['perplexity']:.2f}, {times}. {drawn}"
    )
