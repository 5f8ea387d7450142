"""The picture of a matrix: true weights under the pointer, named cells, values where they can be read, and the page's colours."""

import holoviews as hv
import numpy as np
import pytest
import torch

from workbench.analysis.weights import raster
from workbench.analysis.weights.raster import Window
from workbench.views import holoviews_style as style
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import weight_raster as views
from workbench.views.weights.weight_raster import Marks, RasterPicture

WEIGHT = torch.zeros(300, 700)
WEIGHT[211, 503] = -2.5


def draw(
    weight: torch.Tensor, window: Window | None = None, *, theme: Theme = LIGHT, what: views.What = "original"
) -> RasterPicture:
    """All that a picture of a window shows."""
    rows, cols = weight.shape
    cells = raster.rasterize(raster.read_weight(weight), window or (0, rows - 1, 0, cols - 1))
    x, y = views.compute_axis_ranges(cells.window)
    return RasterPicture(cells, what, (rows, cols), cells.compute_limit(), x, y, theme)


def render(element: object) -> object:
    """A figure of Bokeh with its plot."""
    return hv.renderer("bokeh").get_plot(element)


def axes() -> list[object]:
    return style.name_axes("column (input)", "row (output)")


def test_axes_of_two_pictures_are_linked_only_where_they_are_the_same() -> None:
    first, second = axes(), axes()
    assert first[0].name != second[0].name
    assert [axis.label for axis in first] == ["column (input)", "row (output)"]


def test_the_sentence_names_cells_and_the_largest_weight() -> None:
    said = views.describe_raster(draw(WEIGHT).raster, "original")
    assert "300 × 700 weights" in said
    assert "each cell: the weight of largest magnitude among 2 × 2 (max-abs)" in said
    assert "the largest original weight is -2.5, at row 211, column 503." in said
    assert "NaN" not in said
    near = draw(WEIGHT, (200, 219, 500, 509)).raster
    assert views.describe_raster(near, "difference").startswith(
        "20 × 10 weights, single weights; the largest quantized − original"
    )


def test_weights_that_are_no_numbers_are_counted() -> None:
    weight = torch.ones(4, 4)
    weight[1, 2], weight[0, 0] = float("nan"), float("inf")
    assert views.describe_raster(draw(weight).raster, "original").endswith("2 cells hold NaN or infinity.")


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize("what", ["original", "difference"])
def test_the_picture_has_true_weights_and_the_pages_colours(theme: Theme, what: views.What) -> None:
    picture = draw(WEIGHT, theme=theme, what=what)
    plot = render(views.draw_weight_raster(picture, axes()))
    source, figure = plot.handles["cds"].data, plot.state
    np.testing.assert_array_equal(source["image"][0], picture.raster.values)
    np.testing.assert_array_equal(source["row"][0], picture.raster.rows)
    np.testing.assert_array_equal(source["column"][0], picture.raster.cols)
    assert source["image"][0].dtype == np.float32
    assert sum(array.nbytes for name in ("image", "row", "column") for array in source[name]) < 800_000
    assert (figure.x_range.start, figure.x_range.end) == (-0.5, 699.5)
    assert (figure.y_range.start, figure.y_range.end) == (299.5, -0.5), "row 0 is on top"
    assert figure.x_range.bounds == (-0.5, 699.5)
    assert figure.background_fill_color == figure.border_fill_color == theme.surface
    assert figure.title.text == f"{what}: max-abs of 2 × 2"
    mapper = plot.handles["color_mapper"]
    assert (mapper.low, mapper.high, mapper.nan_color) == (-2.5, 2.5, theme.danger)
    half = len(mapper.palette) // 2
    assert (list(mapper.palette[:half]) == list(reversed(mapper.palette))[:half]) == (what == "original"), "sizes have one colour"
    bar = figure.right[0]
    assert bar.color_mapper.low == (0 if what == "original" else -2.5)


def test_values_are_written_where_they_can_be_read() -> None:
    near = views.draw_weight_values(draw(WEIGHT, (210, 212, 502, 504)), axes())
    assert len(near) == 9
    texts = dict(zip(zip(near.dimension_values(0), near.dimension_values(1), strict=True), near.dimension_values(2), strict=True))
    assert texts[503, 211] == "-2.5"
    assert texts[502, 211] == "0"
    assert len(views.draw_weight_values(draw(WEIGHT), axes())) == 0


def test_marks_run_on_both_sides_of_a_row_or_channel() -> None:
    lines = views.draw_marks(Marks((3, 4), (8,), (10, 20), LIGHT), axes())
    ends = {tuple(line) for line in lines.array()}
    assert ends == {
        (-0.5, 2.5, 19.5, 2.5),
        (-0.5, 3.5, 19.5, 3.5),
        (-0.5, 4.5, 19.5, 4.5),
        (7.5, -0.5, 7.5, 9.5),
        (8.5, -0.5, 8.5, 9.5),
    }
    assert len(views.draw_marks(Marks((), (), (10, 20), LIGHT), axes())) == 0


def test_a_single_weight_is_a_picture_too() -> None:
    plot = render(views.draw_weight_raster(draw(torch.ones(1, 1)), axes()))
    assert plot.handles["cds"].data["image"][0].tolist() == [[1.0]]
    assert (plot.state.x_range.start, plot.state.x_range.end) == (-0.5, 0.5)
