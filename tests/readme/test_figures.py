"""The README's figures are those of the script, and measured again they come out within the stated tolerance."""

import pytest

from tests.readme.figures import README, RECIPES, TOLERANCE, measure_row, read_figures, with_table


def test_the_readme_shows_the_recorded_figures() -> None:
    readme, figures = README.read_text(encoding="utf-8"), read_figures()
    assert list(figures["rows"]) == list(RECIPES)
    assert with_table(readme, figures) == readme


@pytest.mark.complete
@pytest.mark.parametrize("spelling", ["none", "rtn:bits=1,group=0", "binary", "btc:bits=0.8"])
def test_a_recorded_figure_comes_out_again(spelling: str) -> None:
    recorded, measured = read_figures()["rows"][spelling], measure_row(spelling, None)
    assert measured["stored"] == pytest.approx(recorded["stored"], abs=1e-6)
    expected = recorded["texts"]["evaluation"]["perplexity"]
    assert measured["texts"]["evaluation"]["perplexity"] == pytest.approx(expected, rel=TOLERANCE)
