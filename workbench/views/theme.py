"""Colours, fonts and number formats, shared by every page and every exported figure.

Original is blue-grey, quantized is orange, a difference runs blue–white–orange, the selection is raspberry, and other
quantities use cividis, which colour-blind readers see as well as anybody.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.intervals import UNIT_TOKENS, format_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

FIGURE_HEIGHT = 440  # pixels of a figure that is the only one of its view
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
DIVERGING = [[0.0, "#1f5f99"], [0.25, "#8fb8da"], [0.5, "#ffffff"], [0.75, "#f3b06b"], [1.0, "#c25e00"]]
SEQUENTIAL = "Cividis"
# Okabe and Ito's palette (2008) without black; yellow last, since it is faint on white
CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d9e", "#b5a642", "#7f8c8d", "#f0e442"]


@dataclass(frozen=True)
class Theme:
    """The colours of one mode, as CSS colours; `contrast` reads on top of the strong colours."""

    name: str
    page: str
    surface: str
    raised: str
    text: str
    muted: str
    border: str
    original: str
    quantized: str
    action: str
    contrast: str
    accent: str
    danger: str


LIGHT = Theme(
    name="light",
    page="#f3f5f7",
    surface="#ffffff",
    raised="#eef1f4",
    text="#1d2730",
    muted="#566573",
    border="#d8dee5",
    original="#5f7f9b",
    quantized="#e07b1a",
    action="#b85700",
    contrast="#ffffff",
    accent="#c2255c",
    danger="#b3261e",
)

DARK = Theme(
    name="dark",
    page="#12161b",
    surface="#1a2027",
    raised="#242c35",
    text="#e6ebf0",
    muted="#a3b0bd",
    border="#36414c",
    original="#8fb0cc",
    quantized="#f5a04a",
    action="#f5a04a",
    contrast="#1b1206",
    accent="#ff7fab",
    danger="#ff8a80",
)

THEMES = {"light": LIGHT, "dark": DARK}

# a logarithmic axis: all numbers in one size, where Plotly itself writes the 2 and the 5 of a decade smaller than the 1
LOGARITHMIC = {"type": "log", "tickvals": [step * 10.0**decade for decade in range(-9, 13) for step in (1, 2, 5)]}


def build_error_bars(table: "pd.DataFrame", column: str, color: str, *, scale: float = 1.0, **more: Any) -> dict[str, Any]:
    """Error bars from `column`_low to `column`_high around `column`, all times `scale`."""
    value, low, high = (scale * table[f"{column}{end}"].astype(float) for end in ("", "_low", "_high"))
    above, below = ((high - value).fillna(0.0), (value - low).fillna(0.0))  # no bar where there is no interval
    bars = {"type": "data", "symmetric": False, "array": above.tolist(), "arrayminus": below.tolist()}
    return {**bars, "color": color, **more}


def build_noise_line(places: "Sequence[float]", floor: float, theme: Theme) -> dict[str, Any]:
    """The KL of half precision alone as a dashed line from the first to the last layer."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [places[0], places[-1]],
        "y": [floor, floor],
        "name": "half-precision noise",
        "line": {"color": theme.accent, "width": 2, "dash": "dash"},
        "hovertemplate": "half precision alone: %{y:.3g}<extra></extra>",
    }


def build_layout(theme: Theme, *, x: str = "", y: str = "", height: int = FIGURE_HEIGHT, **more: Any) -> dict[str, Any]:
    """A plotly layout in this theme: quiet axes with the titles `x` and `y`, no plotly title."""
    axis: dict[str, Any] = {
        "gridcolor": theme.border,
        "linecolor": theme.border,
        "zeroline": False,
        "automargin": True,
        "minorloglabels": "complete",  # a logarithmic axis writes 20 and 50, not small digits
        "title": {"standoff": 10, "font": {"size": 13, "color": theme.muted}},
        "tickfont": {"size": 12, "color": theme.muted},
    }
    base: dict[str, Any] = {
        "height": height,
        "autosize": True,
        "paper_bgcolor": theme.surface,  # it may stand in a dark notebook or be saved alone
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": theme.text},
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "hoverlabel": {
            "bgcolor": theme.raised,
            "bordercolor": theme.border,
            "font": {"family": FONT, "size": 13, "color": theme.text},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 13, "color": theme.text}},
        "colorway": CATEGORIES,
        "xaxis": axis | {"title": axis["title"] | {"text": x}},
        "yaxis": axis | {"title": axis["title"] | {"text": y}},
    }
    for key, value in more.items():
        base[key] = base[key] | value if isinstance(base.get(key), dict) else value
    for name, axis_title in (("xaxis", x), ("yaxis", y)):
        base[name]["title"] = axis["title"] | {"text": axis_title} | base[name]["title"]
    return base


def build_colorbar(theme: Theme, title: str) -> dict[str, Any]:
    """A slim colour scale as high as the plot, with a title beside it."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 12, "color": theme.muted}},
        "thickness": 12,
        "len": 1,
        "ypad": 0,
        "outlinewidth": 0,
        "tickfont": {"size": 11, "color": theme.muted},
    }


def compute_bar_gap(bars: int, least: float) -> float:
    """The share of an axis between its bars: few bars are no wider than the sixth part of the figure."""
    return max(least, 1 - bars / 6)


def format_bits(value: float) -> str:
    """Bits per weight, two decimals."""
    return f"{value:.2f}"


def format_error(value: float) -> str:
    """An error, three significant digits."""
    return f"{value:.3g}"


def format_percent(share: float) -> str:
    """A share as per cent with three significant digits at most; never a false 0 or 100."""
    if 0 < share < 5e-6:
        return "less than 0.001 %"
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    return f"{100 * share:.3g} %"


def format_megabytes(bits_stored: float) -> str:
    """A size in MB (10⁶ bytes), in kB below a tenth of one; whole ones above a hundred."""
    size = bits_stored / 8
    if size < 1e5:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.2f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def format_speed(tokens_per_second: float) -> str:
    """Tokens per second."""
    return f"{tokens_per_second:,.0f} tokens/s"


def format_duration(seconds: float) -> str:
    """A time with its unit."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def format_estimate(seconds: float) -> str:
    """A time that is only roughly known."""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:,.0f} h"


def describe_interval_basis(texts: int) -> str:
    """What intervals are over, or what they would need."""
    if texts > 1:
        return f"95 % intervals over {texts} texts."
    return f"No interval: it needs two texts, or two segments of at least {UNIT_TOKENS} tokens."


def format_with_interval(table: "pd.Series", column: str, form: str = ".3g") -> str:
    """A row's figure `column` with its interval: `7.12 (95 %: 6.8 to 7.5)`."""
    return f"{table[column]:{form}} ({format_interval((table[f'{column}_low'], table[f'{column}_high']), form=form)})"


def format_paired_ratio(row: "pd.Series", what: str) -> str:
    """A row's paired ratio to `what`: `1.012 times the original's (95 %: 1.004 to 1.021)`, and whether it can be told from 1."""
    low, high = row["ratio_low"], row["ratio_high"]
    apart = ": no significant difference on this text" if low <= 1 <= high else ""
    return f"{row['ratio']:.4g} times {what}'s ({format_interval((low, high), form='.4g')}){apart}"


def format_count(number: int, thing: str, things: str | None = None) -> str:
    """A number with its noun: `1 layer`, `1,234 layers`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
