"""Which codeword each vector of a layer uses, as a HoloViews picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.method.codewords import IndexRaster
from workbench.views import holoviews_style as style
from workbench.views.theme import Theme, format_count, format_percent

MAP_QUESTION = "Which codeword does each vector use?"
WRITTEN_VECTORS = (16, 16)  # rows and vectors up to which each has its code written on it


@dataclass(frozen=True)
class IndexPicture:
    """All that the picture shows: `entries` are all codes, `x` and `y` the ranges of its axes, `shape` is [rows, vectors]."""

    raster: IndexRaster
    window: tuple[int, int, int, int]
    entries: int
    shape: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    theme: Theme


def describe_index(picture: IndexPicture, table: pd.DataFrame, codes: Sequence[int]) -> str:
    """How much is seen, how vectors become cells, and the code used most."""
    (top, bottom, left, right), raster = picture.window, picture.raster
    single = raster.row_step * raster.col_step == 1
    cells = "single vectors" if single else f"each cell: the first of {raster.row_step} × {raster.col_step} vectors"
    if codes and not single:
        cells += ", or the first with a marked code"
    most = table.iloc[0]
    text = f"{bottom - top + 1:,} × {right - left + 1:,} vectors, {cells}; code {int(most['codeword'])} is used most here, by "
    text += f"{format_percent(float(most['share']))} of the vectors."
    if codes:
        text += f" {format_count(int(raster.chosen.sum()), 'cell holds', 'cells hold')} a marked code."
    return text


def draw_index_map(picture: IndexPicture, axes: Sequence[Any]) -> Any:
    """The codes by their numbers; cells with a marked code have the colour of the selection."""
    from bokeh.models import HoverTool

    hv, raster, theme = style.load_holoviews(), picture.raster, picture.theme
    height, width = raster.codes.shape
    columns = {
        **style.locate_cells(axes, picture.window, (height, width), (raster.row_step, raster.col_step)),
        "shade": np.where(raster.chosen, np.nan, raster.codes).astype(np.float32),
        "code": raster.codes,
        "row": raster.rows,
        "vector": raster.cols,
    }
    hover = HoverTool(tooltips=[("code", "@code"), ("row", "@row"), ("vector", "@vector")])
    single = raster.row_step * raster.col_step == 1
    image = hv.Image(columns, kdims=list(axes), vdims=["shade", "code", "row", "vector"], rtol=1)
    return image.opts(
        cmap=style.build_sequential_palette(),
        clim=(0, max(picture.entries - 1, 1)),
        clipping_colors={"NaN": theme.accent},
        clabel="code",
        title="codes: single vectors" if single else f"codes: one vector of {raster.row_step} × {raster.col_step}",
        **style.build_picture_options(picture.x, picture.y),
        tools=[hover],
        hooks=[style.follow_linked_axes, style.style_figure(theme), style.bound_axes(picture.shape)],
    )


def draw_codes(picture: IndexPicture, axes: Sequence[Any]) -> Any:
    """The numbers of the codes, where there are few enough to read."""
    hv, raster = style.load_holoviews(), picture.raster
    rows, vectors = WRITTEN_VECTORS
    written = raster.row_step * raster.col_step == 1 and raster.codes.shape[0] <= rows and raster.codes.shape[1] <= vectors
    codes = raster.codes.ravel() if written else raster.codes[:0].ravel()
    light = codes < 0.55 * picture.entries  # cividis begins dark
    columns = (raster.cols.ravel()[: len(codes)], raster.rows.ravel()[: len(codes)], [f"{code}" for code in codes])
    labels = hv.Labels((*columns, np.where(light, "#ffffff", "#000000")), kdims=list(axes), vdims=["number", "ink"])
    return labels.opts(text_color="ink", text_font_size="11px", framewise=True, apply_ranges=False)


def draw_no_marks(_: Any, axes: Sequence[Any]) -> Any:
    """Nothing above the picture: marked codes are its own colour."""
    return style.load_holoviews().Points([], kdims=list(axes)).opts(apply_ranges=False)
