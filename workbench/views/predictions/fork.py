"""Where a quantized model's text diverges from the original's, and which layer causes it."""

import pandas as pd

from workbench.analysis.predictions.fork import Guilt, Recovery
from workbench.analysis.predictions.generation import WrittenToken
from workbench.intervals import Interval
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_names import label_layer_name
from workbench.views.predictions.generation import build_fork_line, render_token_buttons
from workbench.views.theme import Theme
from workbench.views.token_text import quote_token

WORST = 12

NAMED = 2  # guilty layers that a sentence names; more are counted


def draw_text_fork(table: pd.DataFrame, fork: int | None, chosen: int | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the KL of every token of the original's text; a dotted line is at the fork.

    Args:
        table: The table `ForkFinder.table`.
        fork: Position of the first token that differs, from 1, or None.
        chosen: Place of a token to mark, from 0.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=1), layers="*.0.*")
        >>> finder = wb.ForkFinder(model, small, "Once upon a time", tokens=8)
        >>> figure = wb.figures.text_fork(finder.table, finder.fork)
        >>> figure.question, len(figure.table)
        ('Where do the texts diverge?', 8)
    """
    edges = [theme.accent if position == chosen else "rgba(0,0,0,0)" for position in range(len(table))]
    bars = {
        "type": "bar",
        "x": table["position"].tolist(),
        "y": table["kl"].tolist(),
        "text": [quote_token(token) for token in table["token"]],
        "textposition": "none",
        "customdata": [quote_token(token) for token in table["chosen"]],
        "marker": {"color": theme.quantized, "line": {"color": edges, "width": 2}},
        "name": "KL",
        "hovertemplate": "token %{x}: %{text}, quantized writes %{customdata}<br>KL %{y:.3g}<extra></extra>",
    }
    layout = themes.build_layout(
        theme, x="token after the prompt", y="KL, nats", height=260, bargap=0.1, shapes=build_fork_line(fork, theme)
    )
    if fork is None:
        answer = f"They do not diverge: both models write the same {themes.format_count(len(table), 'token')}."
    else:
        row = table.iloc[fork - 1]
        answer = (
            f"At token {fork}: the original writes {quote_token(row['token'])}, the quantized model "
            f"{quote_token(row['chosen'])}, at a KL of "
            f"{themes.format_error(row['kl'])} nats (median of all tokens: {themes.format_error(table['kl'].median())})."
        )
    return Figure("Where do the texts diverge?", answer, {"data": [bars], "layout": layout}, table)


def render_fork_text(table: pd.DataFrame, fork: int | None, chosen: int | None = None, *, theme: Theme = themes.LIGHT) -> str:
    """The original's text as HTML, every token a button in a tint of its KL; `chosen` is a place, from 0."""
    tokens = [WrittenToken(0, text, kl, ()) for text, kl in zip(table["token"], table["kl"], strict=True)]
    return render_token_buttons("", tokens, None if fork is None else fork - 1, chosen, theme)


def draw_fork_blame(table: pd.DataFrame, fork: int, guilt: Guilt, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw what restoring each layer wins back at the fork; the layers that take the fork away together are orange.

    Args:
        table: What `ForkFinder.blame` gives.
        fork: Position of the first token that differs, from 1.
        guilt: What `ForkFinder.guilty` gives.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=1), layers="*.0.*")
        >>> finder = wb.ForkFinder(model, small, "Once upon a time", tokens=8)
        >>> figure = wb.figures.fork_blame(finder.blame(), finder.fork, finder.guilty())
        >>> figure.question, len(figure.table)
        ('Which layers are to blame?', 7)
    """
    worst = table[(table.index < WORST) | table["name"].isin(guilt.layers)].iloc[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": worst["lead_gain"].tolist(),
        "y": worst["name"].tolist(),
        "marker": {"color": [theme.quantized if name in guilt.layers else theme.border for name in worst["name"]]},
        "customdata": worst[["lead_restored", "kl_alone"]].to_numpy().tolist(),
        "hovertemplate": "%{y}<br>recovers %{x:.3g} nats, lead then %{customdata[0]:.3g}<extra></extra>",
    }
    layout = themes.build_layout(theme, x="lead recovered by restoring the layer, nats", height=120 + 22 * len(worst), bargap=0.3)
    figure = {"data": [bars], "layout": layout}
    shown = table.assign(guilty=table["name"].isin(guilt.layers))
    return Figure("Which layers are to blame?", _describe_fork_blame(table, fork, guilt), figure, shown)


def describe_guilty_layers(table: pd.DataFrame, fork: int | None, guilt: Guilt | None) -> str:
    """Where the run parts from the original, and which layers take the fork away when they are restored."""
    if fork is None or guilt is None:
        return f"The run writes the same {len(table)} tokens as the original: no layer is to blame."
    row, names = table.iloc[fork - 1], [label_layer_name(name) for name in guilt.layers]
    listed = " and ".join(names) if len(names) <= NAMED else f"the {len(names)} layers framed on the map"
    then = "the fork is gone" if guilt.moved is None else f"it moves to token {guilt.moved}"
    return (
        f"At token {fork} the original writes {quote_token(row['token'])} and the run {quote_token(row['chosen'])}. "
        f"With {listed} restored to full precision, {then}."
    )


def _format_restored_layers(count: int) -> str:
    """How many layers undo the fork alone, as the beginning of a sentence."""
    return "Restoring this one layer is" if count == 1 else f"Restoring any one of {count} layers is"


def _describe_fork_blame(table: pd.DataFrame, fork: int, guilt: Guilt) -> str:
    """The one layer, or the smallest set found, and where the fork is without its damage."""
    first, behind = table.iloc[0], table["lead_gain"].iloc[0] - table["lead_restored"].iloc[0]
    then = "the fork is gone" if guilt.moved is None else f"the fork moves from token {fork} to {guilt.moved}"
    if len(guilt.layers) == 1:
        alone = int(table["holds"].sum())
        return (
            f"{guilt.layers[0]}: restored to full precision, it recovers {themes.format_error(first['lead_gain'])} nats and "
            f"{then}. {_format_restored_layers(alone)} enough to remove the fork."
        )
    return (
        f"No single layer: restoring the worst, {first['name']}, recovers {themes.format_error(first['lead_gain'])} of the "
        f"{themes.format_error(behind)} nats that the original's token is behind. With {len(guilt.layers)} restored (orange) "
        f"{then}, and none of them can be left out: {', '.join(guilt.layers)}."
    )


def draw_fork_shares(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the share of forks that so many restored layers take away, blamed layers beside layers drawn by chance.

    Args:
        table: The table of `wb.measures.fork_shares`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> study = pd.DataFrame({"needed": [1, 1, 1, 4], "random": [3, 5, 6, 6]})  # of four prompts
        >>> figure = wb.figures.fork_shares(wb.measures.fork_shares(study, counts=[1, 4]))
        >>> figure.answer.split(".")[0]
        '1 restored layer removes most forks'
    """
    sides = [("share", "blamed layers", theme.quantized), ("chance", "random layers", theme.border)]
    bars = [
        {
            "type": "bar",
            "x": table["restored"].astype(str).tolist(),
            "y": table[column].tolist(),
            "name": name,
            "marker": {"color": colour},
            "error_y": themes.build_error_bars(table, column, theme.muted),
            "hovertemplate": f"{name}: %{{y:.0%}} with at most %{{x}} restored<extra></extra>",
        }
        for column, name, colour in sides
    ]
    layout = themes.build_layout(
        theme, x="maximum number of layers restored", y="share of forks removed", height=320, showlegend=True
    )
    layout["yaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    enough = table[table["share"] > 0.5]
    fewest = int(enough["restored"].iloc[0]) if len(enough) else None
    first = table.iloc[0]
    answer = (
        f"{_describe_fewest_layers(fewest)} most forks. "
        f"Restoring the blamed layer alone removes {themes.format_percent(first['share'])} "
        f"({themes.format_percent(first['share_low'])} to {themes.format_percent(first['share_high'])}) of "
        f"{themes.format_count(int(first['forks']), 'prompt')}, a random layer {themes.format_percent(first['chance'])} "
        f"({themes.format_percent(first['chance_low'])} to {themes.format_percent(first['chance_high'])})."
    )
    return Figure("How many layers are to blame for a fork?", answer, {"data": bars, "layout": layout}, table)


def _describe_fewest_layers(fewest: int | None) -> str:
    """The smallest number of restored layers that removes most forks, as the beginning of a sentence."""
    if fewest is None:
        return "No number of layers shown removes"
    return f"{themes.format_count(fewest, 'restored layer')} {'removes' if fewest == 1 else 'remove'}"


def describe_fork_recovery(result: Recovery) -> str:
    """Say in a sentence what forcing the original's token at the fork brings.

    Args:
        result: What `ForkFinder.rewind` gives.

    Returns:
        The sentence, with 95 % intervals.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=1), layers="*.0.*")
        >>> finder = wb.ForkFinder(model, small, "Once upon a time", tokens=8)
        >>> sentence = wb.figures.fork_recovery(finder.rewind(continuations=2, tokens=4))
        >>> sentence.startswith("With the original's token forced at the fork, ")
        True
    """

    def rate(share: float, interval: Interval) -> str:
        return f"{themes.format_percent(share)} ({themes.format_percent(interval[0])} to {themes.format_percent(interval[1])})"

    expected_share = result.continuations / (result.continuations + 1)
    return (
        f"With the original's token forced at the fork, {rate(result.forced, result.forced_interval)} of {result.continuations} "
        f"continuations of {result.tokens} tokens are as likely under the original as its own; with the quantized model's token, "
        f"{rate(result.left, result.left_interval)}; expected for further continuations by the original: "
        f"{themes.format_percent(expected_share)} (seeds from {result.seed}, 95 % intervals)."
    )
