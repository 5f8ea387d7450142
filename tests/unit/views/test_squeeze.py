"""The squeeze figures: numbers as they were measured, and a sentence that claims no more than the intervals allow."""

from dataclasses import replace

import pytest

from workbench.analysis.decisions.squeeze import STOPS, Squeezed, squeeze_table
from workbench.views.decisions import squeeze
from workbench.views.theme import LIGHT

WHOLE = Squeezed(STOPS[0], 16.0, 16.0, 9_800_000, 7.88, 7.4, 8.4, 1.0, 1.0, 1.0, 12_618, 20_000_000, 400.0, 390.0, 410.5)
HALF = replace(
    WHOLE, stop=STOPS[1], bits_per_weight=8.19, nominal_bits=8.0, bytes=5_000_000, perplexity=8.1, perplexity_low=7.6,
    ratio=1.028, ratio_low=0.99, ratio_high=1.07,
)  # fmt: skip
TINY = replace(
    WHOLE, stop=STOPS[-1], bits_per_weight=0.7, nominal_bits=0.64, perplexity=14.3, perplexity_low=13.7,
    ratio=1.815, ratio_low=1.7, ratio_high=1.93,
)  # fmt: skip


def test_a_stop_has_four_numbers_with_nominal_and_interval_beneath() -> None:
    shown = [(number.value, number.beneath) for number in squeeze.numbers(HALF)]
    assert shown == [
        ("8.19", "8.00 nominal"),
        ("5.00 MB", "20.00 MB in memory"),
        (
            "8.10",
            "95 %: 7.60 to 8.40; 1.028 times the original's (95 %: 0.99 to 1.07): no difference that 12,618 tokens can show",
        ),
        ("410 tokens/s", "best of three rounds, median 400"),
    ]
    html = squeeze.numbers_html(squeeze.numbers(HALF), LIGHT)
    assert html.count("<dt") == 4
    assert "410 tokens/s" in html


def test_the_curve_has_intervals_and_marks_the_current_stop() -> None:
    figure = squeeze.curve(squeeze_table([TINY, WHOLE, HALF]), HALF.stop.preset)
    (trace,) = figure.plot["data"]
    assert trace["x"] == [16.0, 8.19, 0.7]
    assert trace["error_y"]["array"] == pytest.approx([0.52, 0.3, -5.9])
    assert trace["error_y"]["symmetric"] is False
    assert [edge == LIGHT.accent for edge in trace["marker"]["line"]["color"]] == [False, True, False]
    assert figure.table["recipe"].tolist() == [stop.preset for stop in (STOPS[0], STOPS[1], STOPS[-1])]
    assert figure.answer == (
        "Down to 8.19 stored bits the text shows no difference from the original (8.10 against 7.88 at 16.00); "
        "at 0.70 it is 14.30, 1.815 times the original's (95 %: 1.7 to 1.93)."
    )


def test_one_stop_claims_nothing_about_others() -> None:
    assert squeeze.curve(squeeze_table([WHOLE]), None).answer == "One stop is built: 16.00 stored bits, perplexity 7.88."


def test_a_text_of_one_document_has_numbers_without_intervals() -> None:
    alone = replace(TINY, perplexity_low=None, perplexity_high=None, ratio_low=None, ratio_high=None)
    number = squeeze.numbers(alone)[2]
    assert number.beneath.startswith("no interval: one document of 12,618 tokens; 1.815 times the original's")
    figure = squeeze.curve(squeeze_table([WHOLE, alone]), None)
    assert figure.plot["data"][0]["error_y"]["array"] == pytest.approx([0.52, 0.0])


def test_bits_say_what_share_they_are_of() -> None:
    assert squeeze.numbers(replace(WHOLE, coverage=0.9723))[0].beneath == "16.00 nominal, in 97.2 % of the weights"
    assert squeeze.numbers(WHOLE)[0].beneath == "16.00 nominal"
