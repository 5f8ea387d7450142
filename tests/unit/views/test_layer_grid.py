"""The grid of layers: heights, numbers and colours, whatever the number of blocks; axes of figures with a mark a layer."""

import numpy as np
import pandas as pd
import pytest

from workbench.views import layer_grid


def make_layers(blocks: int, matrices: int = 7) -> pd.DataFrame:
    """Layers of equal blocks, numbered errors."""
    places = [(block, matrix) for block in range(blocks) for matrix in range(matrices)]
    return pd.DataFrame(
        {
            "name": [f"m.{block}.part{matrix}" for block, matrix in places],
            "block": [block for block, _ in places],
            "matrix": [f"part{matrix}" for _, matrix in places],
            "output_error": np.linspace(0.01, 0.9, len(places)),
            "error_difference": np.linspace(-0.1, 0.4, len(places)),
        }
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.001, "~0"),
        (-0.004, "~0"),
        (0.57, ".57"),
        (-0.04, "-.04"),
        (1.25, "1.2"),
        (12.3, "12"),
        (66_000, "66k"),
        (2.5e6, "2.5M"),
    ],
)
def test_numbers_in_cells_are_short(value: float, written: str) -> None:
    assert layer_grid.format_short_number(value) == written
    assert layer_grid.format_short_number(float("nan")) == ""


def test_small_errors_have_three_digits() -> None:
    layers = make_layers(2)
    for scale, first in ((1.0, ".01"), (0.1, ".001")):
        plot = layer_grid.draw_layer_grid(layers.assign(output_error=scale * layers["output_error"]), "output_error", None)
        assert plot["layout"]["annotations"][0]["text"] == first


@pytest.mark.parametrize(("blocks", "highest"), [(2, 220), (6, 400), (40, 502), (80, 780)])
def test_many_blocks_have_low_rows_and_few_have_numbers(blocks: int, highest: int) -> None:
    plot = layer_grid.draw_layer_grid(make_layers(blocks), "output_error", None)
    heat, layout = plot["data"][0], plot["layout"]
    assert len(heat["z"]) == blocks
    assert layout["height"] <= highest
    assert layout["yaxis"]["range"] == [blocks - 0.5, -0.5]
    assert 2 <= len(layout["yaxis"]["ticktext"]) <= 24
    if blocks <= 6:
        assert len(layout["annotations"]) == 7 * blocks
        assert not heat["showscale"]
    else:
        assert layout["annotations"] == []
        assert heat["colorbar"]["title"]["text"] == "output error"


def test_a_difference_is_coloured_around_zero() -> None:
    plot = layer_grid.draw_layer_grid(make_layers(2), "error_difference", None, signed=True)
    heat = plot["data"][0]
    assert (heat["zmin"], heat["zmax"]) == (-0.4, 0.4)


def test_labels_of_a_long_axis_are_blocks() -> None:
    axis = layer_grid.build_block_axis(make_layers(3, 2))
    assert (axis["tickvals"], axis["ticktext"]) == ([0.5, 2.5, 4.5], ["0", "1", "2"])
    many = layer_grid.build_block_axis(make_layers(40))
    assert many["ticktext"] == [str(block) for block in range(0, 40, 2)]
