"""The picture of groups shows the numbers it was given, a window of them, in colours that mean something."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.analysis.method.weight_groups import GroupMap
from workbench.views.method import weight_groups as views
from workbench.views.theme import DARK, LIGHT, Theme

NAMES = ["pruned", "magnitude 1 of 2", "magnitude 2 of 2", "salient columns"]


@pytest.fixture
def found() -> GroupMap:
    numbers = np.arange(200 * 300, dtype=np.uint32).reshape(200, 300) % 4
    table = pd.DataFrame({"group": NAMES, "count": [15000] * 4, "share": [0.25] * 4, "magnitude": [0.1, 0.2, 0.5, 1.0]})
    return GroupMap(numbers.astype(np.uint8), table, 1.5)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_window_of_the_layer(found: GroupMap, theme: Theme) -> None:
    figure = views.draw_weight_groups(found, 150, 100, theme=theme)
    go.Figure(figure.plot)
    (trace,) = figure.plot["data"]
    np.testing.assert_array_equal(trace["z"], found.groups[150:, 100:])
    assert (trace["y0"], trace["x0"]) == (150, 100)
    assert trace["colorbar"]["ticktext"] == NAMES
    assert figure.answer.startswith("25 % pruned, 25 % magnitude 1 of 2")
    assert figure.answer.endswith("the map of groups costs 1.50 bits per weight. Shown: 50 × 200.")


def test_each_group_has_a_colour_of_its_own() -> None:
    names = [f"magnitude {n} of 4" for n in (1, 2, 3, 4)]
    assert len(set(views.choose_group_colours(names, LIGHT))) == 4
    both = ["magnitude 1 of 2", "magnitude 2 of 2", "salient columns, magnitude 1 of 2", "salient columns, magnitude 2 of 2"]
    assert len(set(views.choose_group_colours(both, LIGHT))) == 4
    assert views.choose_group_colours(NAMES, DARK)[0] == DARK.border
