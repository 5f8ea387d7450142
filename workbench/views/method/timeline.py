"""One step of a quantizer's run: the current matrix, the loss so far, and a sentence that says what the step does."""

from typing import Any, Literal

import numpy as np
import pandas as pd

from workbench.analysis.method.timeline import CODE, CODEBOOK, CORRECTION, LEARN, REFIT, SWEEP, Moment, Still, tabulate_timeline
from workbench.quantizers.coding_trace import CodingTrace
from workbench.recipe import Recipe
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

What = Literal["error", "groups", "flipped signs"]
BANDS = 16  # rows of the picture's table twin
SCALES = {"error": "|error|", "groups": "coder", "flipped signs": "share flipped"}


def draw_timeline_step(
    coding_trace: CodingTrace, moment: Moment, still: Still, what: What, recipe: Recipe, *, theme: Theme = themes.LIGHT
) -> Figure:
    """The watched rows at one moment; columns not yet coded are empty, and how far they have moved stands below."""
    values = {"error": still.residual, "groups": still.groups, "flipped signs": still.flipped}[what]
    top = max(_find_colour_limit(coding_trace, what), 1e-9)
    x0, dx = (coding_trace.width - 1) / 2, coding_trace.width
    heat = {
        "type": "heatmap",
        "z": values,
        "x0": x0,
        "dx": dx,
        "y": [str(row) for row in coding_trace.rows],
        "colorscale": themes.SEQUENTIAL,
        "zmin": 0.0,
        "zmax": top,
        "colorbar": themes.build_colorbar(theme, SCALES[what]) | {"len": 0.72, "y": 1, "yanchor": "top"},
        "hovertemplate": f"row %{{y}}, near column %{{x:.0f}}<br>{SCALES[what]} %{{z:.3g}}<extra></extra>",
    }
    bars = {
        "type": "bar",
        "x": (x0 + dx * np.arange(len(still.moved))).tolist(),
        "y": [None if np.isnan(v) else float(v) for v in still.moved],
        "width": dx,
        "yaxis": "y2",
        "marker": {"color": theme.quantized},
        "hovertemplate": "near column %{x:.0f}<br>changed by %{y:.2%} of its energy<extra></extra>",
    }
    layout = themes.build_layout(
        theme,
        x="column (input feature)",
        height=460,
        bargap=0,
        showlegend=False,
        xaxis={"range": [-0.5, coding_trace.cols - 0.5], "anchor": "y2", "showgrid": False},
        # a fixed range: where nothing is coded yet there is nothing to take it from
        yaxis={
            "domain": [0.28, 1.0],
            "range": [len(coding_trace.rows) - 0.5, -0.5],
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [str(row) for row in coding_trace.rows],
            "showgrid": False,
            "title": {"text": "row"},
        },
        plot_bgcolor=theme.raised,
        shapes=_build_frame_shapes(coding_trace, moment, still, theme),
    )
    highest = max(float(coding_trace.moved.float().max()), 1e-6)
    second = {
        "domain": [0.0, 0.2],
        "title": layout["yaxis"]["title"] | {"text": "moved"},
        "range": [0, 1.05 * highest],
        "tickformat": ".0%",
        "type": "linear",
    }
    layout["yaxis2"] = layout["yaxis"] | second | {"autorange": False}
    answer = f"{describe_step(moment, coding_trace, recipe)} {_describe_progress(moment, coding_trace, still)}"
    question = "What does this step do?"
    return Figure(question, answer, {"data": [heat, bars], "layout": layout}, _tabulate_column_bands(coding_trace, still))


def _find_colour_limit(coding_trace: CodingTrace, what: What) -> float:
    """The end of the colour scale, the same for all steps: nothing jumps."""
    if what == "error":
        return max(float(frame.residual.float().max()) for frame in coding_trace.pictures.values())
    return float(coding_trace.groups.max()) if what == "groups" else 1.0


def _build_frame_shapes(coding_trace: CodingTrace, moment: Moment, still: Still, theme: Theme) -> list[dict[str, Any]]:
    """A frame around the columns that were coded last, or over which scales are swept."""
    if moment.kind == SWEEP:
        first, last = moment.first, moment.last
    elif still.now.any():
        cells = np.flatnonzero(still.now)
        first, last = int(cells[0]) * coding_trace.width, min(int(cells[-1] + 1) * coding_trace.width, coding_trace.cols) - 1
    else:
        return []
    edges = {"x0": first - 0.5, "x1": last + 0.5, "y0": 0, "y1": 1, "xref": "x", "yref": "y domain"}
    return [{"type": "rect", "line": {"color": theme.accent, "width": 2}, "fillcolor": "rgba(0,0,0,0)", **edges}]


def describe_step(moment: Moment, coding_trace: CodingTrace, recipe: Recipe) -> str:
    """What this step of the algorithm does."""
    number, columns = f"{moment.number + 1} of {moment.count}", _format_columns(moment)
    if moment.kind == LEARN:
        return f"Learning the transform, step {number}: the basis is rotated so that rounding causes less output error."
    if moment.kind == CODEBOOK:
        later = "codewords are refitted to their vectors, then every vector is assigned to its nearest codeword"
        start = "the initial codebook" if moment.count > 1 else "the initial codebook, which cannot be improved"
        step = start if moment.number == 0 else later
        return f"{moment.phase.capitalize()}, round {number}: {step}."
    if moment.kind == SWEEP:
        step = "scales in closed form" if moment.number == 0 else "scales are refitted to the signs, then signs to the scales"
        return f"Sweep {moment.number} over {columns}: {step}."
    if moment.kind == REFIT:
        return "All columns are coded; scales are refitted to the final codes, if the coder does so."
    if moment.kind == CORRECTION:
        return "A low-rank correction is added to the coded matrix."
    what = (
        f"{columns.capitalize()} are coded"
        if _is_coded_in_order(coding_trace)
        else "Columns are coded in order of their second moment"
    )
    if recipe.assignment.name == "nearest":
        return f"{what}, each weight by the nearest value, without error feedback."
    return f"{what}, and their error is fed back into the columns not yet coded."


def _is_coded_in_order(coding_trace: CodingTrace) -> bool:
    """Whether columns were coded from left to right."""
    return bool((coding_trace.coded[1:] >= coding_trace.coded[:-1]).all())


def _format_columns(moment: Moment) -> str:
    """The columns of a moment."""
    return f"columns {moment.first:,} to {moment.last:,}"


def _describe_progress(moment: Moment, coding_trace: CodingTrace, still: Still) -> str:
    """Where the matrix stands after it: coded share, error so far, flipped signs."""
    watched = f"in the {len(coding_trace.rows)} rows shown"
    if not moment.frame:
        return f"No column is coded yet (nothing has changed {watched})."
    if moment.kind in (REFIT, CORRECTION):
        flipped = float(np.nanmean(still.flipped))
        return f"{themes.format_percent(flipped)} of the signs {watched} differ from the original's."
    share = coding_trace.ends[moment.frame - 1] / coding_trace.cols
    moved = float(np.nanmean(still.moved)) if np.isfinite(still.moved).any() else 0.0
    rest = f", the columns not yet coded have changed by {themes.format_percent(moved)} of their energy" if moved else ""
    error = coding_trace.error[moment.frame - 1]
    return (
        f"{themes.format_percent(share)} of the columns are coded; {watched} they have lost "
        f"{themes.format_percent(error)} of the energy{rest}."
    )


def _tabulate_column_bands(coding_trace: CodingTrace, still: Still) -> pd.DataFrame:
    """The picture as a short table: bands of columns with their mean residual, flipped share and movement."""
    lines = []
    for cells in np.array_split(np.arange(len(coding_trace.coded)), min(BANDS, len(coding_trace.coded))):
        last = min(int(cells[-1] + 1) * coding_trace.width, coding_trace.cols) - 1
        coded, moved = still.residual[:, cells], still.moved[cells]
        done = np.isfinite(coded).any()
        lines.append(
            {
                "first column": int(cells[0]) * coding_trace.width,
                "last column": last,
                "largest": float(np.nanmax(coded)) if done else float("nan"),
                "flip_rate": float(np.nanmean(still.flipped[:, cells])) if done else float("nan"),
                "moved": float(np.nanmean(moved)) if np.isfinite(moved).any() else float("nan"),
            }
        )
    return pd.DataFrame(lines)


def draw_step_losses(moments: list[Moment], at: int, *, theme: Theme = themes.LIGHT) -> Figure:
    """The losses of the kind of phase that step `at` (from 0) belongs to, each phase over its own largest; the table has all."""
    kind = moments[at].kind if moments[at].kind in NAMES else CODE
    matching = [(i, moment) for i, moment in enumerate(moments) if moment.kind == kind]
    x: list[float | None] = []
    y: list[float | None] = []
    for (i, moment), before in zip(matching, [None, *(moment for _, moment in matching)], strict=False):
        if before is not None and before.phase != moment.phase:
            x, y = [*x, None], [*y, None]  # a gap between phases
        x, y = [*x, i + 1], [*y, moment.loss]
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "name": NAMES[kind],
        "line": {"color": theme.quantized, "width": 2},
        "marker": {"size": 6},
        "hovertemplate": "step %{x}: %{y:.2%} of the phase's maximum<extra></extra>",
    }
    marker = {"x0": at + 1, "x1": at + 1, "y0": 0, "y1": 1, "yref": "paper"}
    line = {"type": "line", "line": {"color": theme.accent, "width": 2}, **marker}
    axes = {"yaxis": {"tickformat": ".1~%", "rangemode": "tozero" if kind == CODE else "normal"}}
    span_of_all = {"xaxis": {"range": [0, len(moments) + 1]}}
    layout = themes.build_layout(
        theme, x="step", y=f"{NAMES[kind]}, relative to the maximum", height=260, shapes=[line], **axes, **span_of_all
    )
    sentence = _describe_step_losses(moments, kind)
    return Figure("How does the loss change?", sentence, {"data": [trace], "layout": layout}, tabulate_timeline(moments))


NAMES = {LEARN: "held-out loss", CODEBOOK: "codebook's loss", SWEEP: "sweeps' error", CODE: "error of coded columns"}


def _describe_step_losses(moments: list[Moment], kind: str) -> str:
    """How many steps of which kind, and how far the phases of this kind came."""
    kinds = {one: sum(moment.kind == one for moment in moments) for one in NAMES}
    parts = ", ".join(f"{count:,} {STEP_NAMES[one]}" for one, count in kinds.items() if count)
    text = f"The run has {themes.format_count(len(moments), 'step')}: {parts}"
    ends = [moment.loss for moment in moments if moment.kind == kind and moment.number == moment.count - 1]
    if kind == CODE or not ends:
        return f"{text}."
    return f"{text}; {NAMES[kind]} ends at {themes.format_percent(sum(ends) / len(ends))} of the maximum on average."


STEP_NAMES = {LEARN: "of learning", CODEBOOK: "of a codebook's training", SWEEP: "sweeps", CODE: "of coding columns"}
