"""The squeeze figures: numbers as they were measured, and a sentence that claims no more than the intervals allow."""

from dataclasses import replace

import pytest

from workbench.analysis.decisions.squeeze import Squeezed, tabulate_stops
from workbench.analysis.decisions.stops import STOPS
from workbench.views.decisions import squeeze
from workbench.views.theme import LIGHT

WHOLE = Squeezed(
    stop=STOPS[0], bits_per_weight=16.0, nominal_bits=16.0, bytes=9_800_000, perplexity=7.88, perplexity_low=7.4,
    perplexity_high=8.4, ratio=1.0, ratio_low=1.0, ratio_high=1.0, text_tokens=12_618, resident_bytes=20_000_000,
    tokens_per_second=400.0, slowest=390.0, fastest=410.5,
)  # fmt: skip
HALF = replace(
    WHOLE, stop=STOPS[1], bits_per_weight=8.19, nominal_bits=8.0, bytes=5_000_000, perplexity=8.1, perplexity_low=7.6,
    ratio=1.028, ratio_low=0.99, ratio_high=1.07,
)  # fmt: skip
TINY = replace(
    WHOLE, stop=STOPS[-1], bits_per_weight=0.7, nominal_bits=0.64, perplexity=14.3, perplexity_low=13.7,
    ratio=1.815, ratio_low=1.7, ratio_high=1.93,
)  # fmt: skip


def test_the_curve_has_intervals_and_marks_the_current_stop() -> None:
    figure = squeeze.draw_squeeze_curve(tabulate_stops([TINY, WHOLE, HALF]), HALF.stop.preset)
    (trace,) = figure.plot["data"]
    assert trace["x"] == [16.0, 8.19, 0.7]
    assert trace["error_y"]["array"] == pytest.approx([0.52, 0.3, -5.9])
    assert trace["error_y"]["symmetric"] is False
    assert [edge == LIGHT.accent for edge in trace["marker"]["line"]["color"]] == [False, True, False]
    assert figure.table["recipe"].tolist() == [stop.preset for stop in (STOPS[0], STOPS[1], STOPS[-1])]
    assert figure.answer == (
        "Down to 8.19 stored bits, no difference from the original is measurable on this text (8.10 against 7.88 at 16.00); "
        "at 0.70 it is 14.30, 1.815 times the original's (95 %: 1.7 to 1.93)."
    )


def test_one_stop_claims_nothing_about_others() -> None:
    assert (
        squeeze.draw_squeeze_curve(tabulate_stops([WHOLE]), None).answer
        == "One stop is built: 16.00 stored bits, perplexity 7.88."
    )


def test_a_text_of_one_document_has_numbers_without_intervals() -> None:
    alone = replace(TINY, perplexity_low=None, perplexity_high=None, ratio_low=None, ratio_high=None)
    figure = squeeze.draw_squeeze_curve(tabulate_stops([WHOLE, alone]), None)
    assert figure.plot["data"][0]["error_y"]["array"] == pytest.approx([0.52, 0.0])
