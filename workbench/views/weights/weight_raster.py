"""A window of a matrix as a HoloViews picture: original, quantized or their difference, down to single weights with values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workbench.analysis.weights.raster import Raster, Window
from workbench.views import holoviews_style as style
from workbench.views.theme import Theme

What = Literal["original", "quantized", "difference"]
RASTER_QUESTIONS = {
    "original": "Where are the large weights?",
    "quantized": "What are the weights after quantization?",
    "difference": "Where did quantization change the weights?",
}
WRITTEN_ROWS, WRITTEN_COLS = 16, 10  # weights up to which each has its value written on it
DARK_UP_TO = 0.55  # share of cividis on which light words read


@dataclass(frozen=True)
class Names:
    """What the entries, rows and columns of a matrix are called, and the `row_labels` and `col_labels` that a pointer reads."""

    entry: str
    row: str
    column: str
    scale: str = "magnitude"
    row_labels: tuple[str, ...] = ()
    col_labels: tuple[str, ...] = ()


WEIGHTS = Names("weight", "row", "column")


@dataclass(frozen=True)
class RasterPicture:
    """All that one picture shows: `limit` is where its colours end, `x` and `y` are the ranges of its axes."""

    raster: Raster
    what: What
    shape: tuple[int, int]
    limit: float
    x: tuple[float, float]
    y: tuple[float, float]
    theme: Theme
    names: Names = WEIGHTS

    @property
    def signed(self) -> bool:
        """Whether the colours tell the sign."""
        return self.what == "difference"


@dataclass(frozen=True)
class Marks:
    """Marked rows and columns of a matrix of this shape."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    shape: tuple[int, int]
    theme: Theme


def compute_axis_ranges(window: Window) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of the x and y axis that show exactly this window."""
    top, bottom, left, right = window
    return (left - 0.5, right + 0.5), (top - 0.5, bottom + 0.5)


def describe_cells(raster: Raster) -> str:
    """How weights become cells: the aggregator by its name."""
    if raster.single:
        return "single weights"
    return f"each cell: the weight of largest magnitude among {raster.row_step} × {raster.col_step} (max-abs)"


def _build_label_formatter(labels: tuple[str, ...]) -> Any:
    """How a pointer reads a number of a row or column: with its label where it has one. Labels are sent once, not once a cell."""
    from bokeh.models import CustomJSHover

    return CustomJSHover(
        args={"labels": list(labels)}, code="return labels[value] === undefined ? value : `${value} ${labels[value]}`"
    )


def _name_cells(raster: Raster, entry: str) -> str:
    """The same in few words, for the title of a picture."""
    return f"single {entry}s" if raster.single else f"max-abs of {raster.row_step} × {raster.col_step}"


def describe_raster(raster: Raster, what: What) -> str:
    """How much is seen, how it is summed up, and the largest entry."""
    top, bottom, left, right = raster.window
    sizes = np.where(np.isnan(raster.values), np.inf, np.abs(raster.values))
    at = np.unravel_index(int(sizes.argmax()), sizes.shape)
    name = "quantized − original" if what == "difference" else f"{what} weight"
    strange = int((~np.isfinite(raster.values)).sum())
    warning = f" {strange:,} cells hold NaN or infinity." if strange else ""
    return (
        f"{bottom - top + 1:,} × {right - left + 1:,} weights, {describe_cells(raster)}; the largest {name} is "
        f"{raster.values[at]:+.3g}, at row {raster.rows[at]}, column {raster.cols[at]}.{warning}"
    )


def draw_weight_raster(picture: RasterPicture, axes: Sequence[Any]) -> Any:
    """The picture as a HoloViews image; a pointer reads the weight that a cell shows, and where it is."""
    from bokeh.models import HoverTool

    hv, raster, theme, names = style.load_holoviews(), picture.raster, picture.theme, picture.names
    height, width = raster.values.shape
    columns = {
        **style.locate_cells(axes, raster.window, (height, width), (raster.row_step, raster.col_step)),
        "weight": raster.values,
        "row": raster.rows,
        "column": raster.cols,
    }
    hover = HoverTool(
        tooltips=[(picture.what, "@image{%.4g}"), (names.row, "@row{custom}"), (names.column, "@column{custom}")],
        formatters={
            "@image": "printf",
            "@row": _build_label_formatter(names.row_labels),
            "@column": _build_label_formatter(names.col_labels),
        },
    )
    palette = style.build_sequential_palette()
    hooks = [style.follow_linked_axes, style.style_figure(theme), style.bound_axes(picture.shape)]
    if not picture.signed:
        hooks.insert(0, style.show_magnitudes(picture.limit))
    image = hv.Image(columns, kdims=list(axes), vdims=["weight", "row", "column"], rtol=1)  # a single row has no spacing
    return image.opts(
        cmap=style.build_diverging_palette() if picture.signed else [*reversed(palette), *palette],
        clim=(-picture.limit, picture.limit),
        clipping_colors={"NaN": theme.danger},
        clabel="quantized − original" if picture.signed else names.scale,
        title=f"{picture.what}: {_name_cells(raster, names.entry)}",
        **style.build_picture_options(picture.x, picture.y),
        tools=[hover, "box_select", "xbox_select", "ybox_select"],
        hooks=hooks,
    )


def draw_weight_values(picture: RasterPicture, axes: Sequence[Any]) -> Any:
    """The weights' values, written on them where there are few enough to read."""
    hv, raster = style.load_holoviews(), picture.raster
    written = raster.single and raster.values.shape[0] <= WRITTEN_ROWS and raster.values.shape[1] <= WRITTEN_COLS
    values = raster.values.ravel() if written else raster.values[:0].ravel()
    share = np.abs(values) / picture.limit
    light = (share < DARK_UP_TO) & (not picture.signed)
    columns = (
        raster.cols.ravel()[: len(values)],
        raster.rows.ravel()[: len(values)],
        [f"{value:.2g}" for value in values],
        np.where(light, "#ffffff", "#000000"),
    )
    labels = hv.Labels(columns, kdims=list(axes), vdims=["value", "ink"])
    return labels.opts(text_color="ink", text_font_size="11px", framewise=True, apply_ranges=False)


def draw_marks(marks: Marks, axes: Sequence[Any]) -> Any:
    """Marked rows and columns through the whole matrix, each between two lines, which from afar are one."""
    hv = style.load_holoviews()
    far_row, far_col = marks.shape[0] - 0.5, marks.shape[1] - 0.5
    row_edges, col_edges = ({mark + side for mark in numbers for side in (-0.5, 0.5)} for numbers in (marks.rows, marks.cols))
    lines = [(-0.5, edge, far_col, edge) for edge in row_edges] + [(edge, -0.5, edge, far_row) for edge in col_edges]
    ends = [f"{axis.name} end" for axis in axes]
    return hv.Segments(lines, kdims=[*axes, *ends]).opts(
        color=marks.theme.accent, line_width=1.5, apply_ranges=False, framewise=True
    )
