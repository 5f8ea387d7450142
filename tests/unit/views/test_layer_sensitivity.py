"""The figure of sensitivities: most sensitive first, its rivals counted, one trace a recipe."""

import pandas as pd
import pytest

from workbench.views.predictions.layer_sensitivity import draw_layer_sensitivity
from workbench.views.theme import DARK, LIGHT, Theme

TABLE = pd.DataFrame(
    {
        "name": ["m.0.q", "m.0.k", "m.1.q", "m.1.k"],
        "block": [0, 0, 1, 1],
        "matrix": ["self.q", "self.k", "self.q", "self.k"],
        "recipe": "2 bits",
        "bits_per_weight": 2.25,
        "kl": [0.2, 1e-6, 0.3, 0.05],
        "kl_low": [0.15, 0.0, 0.18, 0.04],
        "kl_high": [0.25, 1e-5, 0.4, 0.06],
        "floor": 1e-5,
        "significant": [True, False, True, True],
    }
)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_layers_stand_in_their_blocks_and_are_listed_by_sensitivity(theme: Theme) -> None:
    figure = draw_layer_sensitivity(TABLE, theme=theme)
    points, noise = figure.plot["data"]
    assert dict(zip(points["customdata"], points["x"], strict=True)) == {"m.0.q": 0, "m.0.k": 1, "m.1.q": 2, "m.1.k": 3}
    axis = figure.plot["layout"]["xaxis"]
    assert (axis["tickvals"], axis["ticktext"], axis["tickangle"]) == ([0.5, 2.5], ["0", "1"], 0)
    assert figure.table["name"].tolist() == ["m.1.q", "m.0.q", "m.1.k", "m.0.k"]
    assert points["marker"]["color"] == theme.quantized
    assert points["error_y"]["arrayminus"][0] == pytest.approx(0.12)
    assert noise["y"] == [1e-5, 1e-5]


def test_the_answer_counts_rivals_and_noise() -> None:
    assert draw_layer_sensitivity(TABLE).answer == (
        "m.1.q, which alone at 2.25 stored bits costs 0.3 (95 %: 0.18 to 0.4) nats per token; the intervals of 1 other layer "
        "overlap with it; 1 layer within half-precision noise."
    )
    clear = TABLE.assign(kl_high=[0.17, 0.1, 0.4, 0.06], significant=True)
    assert draw_layer_sensitivity(clear).answer.endswith("nats per token.")


def test_recipes_are_traces_in_one_order() -> None:
    more = TABLE.assign(recipe="4 bits", kl=TABLE["kl"].iloc[::-1].to_numpy() / 10)
    figure = draw_layer_sensitivity(pd.concat([more, TABLE], ignore_index=True))
    two, four, _ = figure.plot["data"]
    assert (two["name"], four["name"]) == ("2 bits", "4 bits")
    assert two["x"] == four["x"] == [2, 0, 3, 1]
    assert two["customdata"] == four["customdata"] == ["m.1.q", "m.0.q", "m.1.k", "m.0.k"]
    assert two["marker"]["color"] != four["marker"]["color"]
    assert figure.answer.startswith("m.1.q, which")
