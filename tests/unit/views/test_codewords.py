"""The figures of a codebook hold every code, mark the chosen ones and say how they serve."""

import pandas as pd
import pytest
import torch

from tests.battery.cases import gaussian, quantize
from workbench.analysis.method import codewords as analysis
from workbench.presets.preset import compose, make_part
from workbench.views.method import codewords
from workbench.views.theme import DARK, LIGHT, Theme

WEIGHT = gaussian(40, 64)
PACKED = quantize(compose(make_part("coder", "binary-codebook", length=8, entries=16)), WEIGHT).packed
(BOOK,) = analysis.list_codebooks(PACKED)
ERRORS = analysis.compute_vector_errors(PACKED, WEIGHT, BOOK)
TABLE = analysis.tabulate_codewords(BOOK, *ERRORS)


def test_every_code_is_a_point_and_dead_ones_stand_at_the_edge() -> None:
    table = TABLE.assign(count=[0, *TABLE["count"][1:]], served=[float("nan"), *TABLE["served"][1:]])
    figure = codewords.draw_codeword_scatter(BOOK, table, 3.5, [2, 3])
    points, marked = figure.plot["data"]
    assert points["x"] == [0.5, *TABLE["count"][1:]]
    assert points["y"][0] == table["served"].min(), "a dead one serves nobody, and is drawn"
    assert len(marked["x"]) == 2
    assert "Of 16 codewords 1 is dead" in figure.answer
    assert figure.answer.endswith("Each index costs 4 bits; its entropy is 3.50 bits.")


def test_pictures_show_the_words_chosen_ones_first() -> None:
    figure = codewords.draw_codewords(BOOK, TABLE, "least used", [5])
    picture, use, _ = figure.plot["data"]
    assert picture["y"][0] == "code 5"
    assert picture["z"][0].tolist() == BOOK.words[5].tolist()
    assert use["x"] == figure.table["count"].tolist()
    assert figure.table["count"][1:].is_monotonic_increasing
    assert "16 of 16 codewords of 8 signs, least used, 1 chosen one first" in figure.answer
    assert "sign" in figure.answer.rsplit("are", 1)[1]


def test_values_are_on_a_diverging_scale() -> None:
    packed = quantize(compose(make_part("coder", "vector-codebook", length=4, entries=16)), WEIGHT).packed
    (book,) = analysis.list_codebooks(packed)
    figure = codewords.draw_codewords(
        book, analysis.tabulate_codewords(book, *analysis.compute_vector_errors(packed, WEIGHT, book)), "largest error"
    )
    picture = figure.plot["data"][0]
    assert picture["zmax"] == -picture["zmin"] == pytest.approx(float(book.words[figure.table["codeword"].tolist()].abs().max()))
    assert "blue is negative" in figure.answer
    assert "a distance of" in figure.answer


def test_places_and_error_of_chosen_codes() -> None:
    table, bins = analysis.tabulate_error_profile(BOOK, [1], *ERRORS)
    place = codewords.draw_code_positions(analysis.locate_codewords(BOOK, [1]), table, [1], (40, 64))
    assert place.answer.startswith(f"Code 1: {int((BOOK.index == 1).sum()):,} vectors")
    assert len(place.table) == int((BOOK.index == 1).sum())
    served = codewords.draw_code_errors(table, bins, [1])
    assert served.answer.startswith("The weights coded by code 1 lose")
    none, empty = analysis.tabulate_error_profile(BOOK, [], *ERRORS)
    assert "No vector uses codes" in codewords.draw_code_errors(none, empty, []).answer


def test_an_edit_is_told_before_and_after() -> None:
    table = pd.DataFrame(
        {"figure": ["weight error", "KL"], "before": [0.2, 0.0], "after": [0.25, 0.1], "difference": [0.05, 0.1],
         "interval": ["", "0.08 to 0.12"]}
    )  # fmt: skip
    figure = codewords.draw_edit_effect(table, "code 3 revived", 12)
    assert figure.plot["data"][0]["x"] == pytest.approx([25.0, 0.0]), "no share of nothing"
    assert figure.answer.startswith("With code 3 revived, 12 vectors moved: weight error 0.2 → 0.25; KL 0 → 0.1 (0.08 to 0.12).")


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_both_pages_have_their_own_colours(theme: Theme) -> None:
    scale = codewords.draw_codewords(BOOK, TABLE, "most used", theme=theme).plot["data"][0]["colorscale"]
    assert [color for _, color in scale] == [theme.original, theme.quantized]
    assert torch.isfinite(BOOK.words).all()
