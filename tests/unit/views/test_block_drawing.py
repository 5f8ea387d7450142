"""The drawing of a block of a model with many: only its own matrices are coloured, on the scale of all layers."""

import numpy as np
import pandas as pd
import pytest

from workbench.views.weights.block_drawing import draw_block


def test_a_block_of_many_is_coloured_by_one_look_at_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.colors

    asked: list[list[float]] = []
    sample = plotly.colors.sample_colorscale

    def count(scale: object, points: list[float]) -> list[str]:
        asked.append(points)
        return sample(scale, points)

    monkeypatch.setattr(plotly.colors, "sample_colorscale", count)
    names = [(block, f"mlp.part{part}") for block in range(40) for part in range(7)]
    layers = pd.DataFrame(
        {
            "name": [f"m.{block}.{matrix}" for block, matrix in names],
            "block": [block for block, _ in names],
            "matrix": [matrix for _, matrix in names],
            "kurtosis": [*np.linspace(0, 1, len(names) - 1), np.nan],
        }
    )
    text = draw_block(layers, "m.39.mlp.part0", "kurtosis")
    (shares,) = asked
    np.testing.assert_allclose(shares, np.linspace(0, 1, len(names) - 1)[-6:])
    assert text.count("data-place=") == 7
    assert text.count("background:rgb(") == 6, "the layer that is not measured has the page's colour"
