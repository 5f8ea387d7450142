"""The figures of a model at a glance: stored beside nominal, intervals beneath, and nothing claimed that was not measured."""

from dataclasses import replace

from tests.unit.views.test_squeeze import HALF, TINY, WHOLE
from workbench.analysis.decisions.headline import Stored
from workbench.views.decisions import headline
from workbench.views.theme import LIGHT


def test_a_model_has_four_figures_with_nominal_and_interval_beneath() -> None:
    shown = [(number.value, number.beneath) for number in headline.list_headline_numbers(replace(HALF, coverage=0.972))]
    assert shown == [
        ("8.19", "8.00 nominal in 97.2 %"),
        ("5.00 MB", "20.00 MB in memory"),
        ("8.10", "95 %: 7.60 to 8.40"),
        ("410 tokens/s", "best of 3, median 400"),
    ]
    html = headline.render_headline(HALF, LIGHT)
    assert html.count("<dt") == 4
    assert (
        "Its perplexity is 1.028 times the original&#x27;s (95 %: 0.99 to 1.07): no significant difference on 12,618 tokens"
        in html
    )


def test_an_original_says_what_it_is_stored_as() -> None:
    quantized = Stored(bits_per_weight=4.5, nominal_bits=4.5, bytes=1_900_000, stored_as="Q4_0, Q8_0")
    assert headline.list_headline_numbers(quantized)[0].beneath == "stored as Q4_0, Q8_0"


def test_the_original_is_not_compared_with_itself() -> None:
    assert headline.describe_perplexity_ratio(WHOLE) == ""


def test_what_was_not_measured_is_a_dash() -> None:
    counted = Stored(bits_per_weight=2.14, nominal_bits=2.0, bytes=1_900_000, coverage=0.5)
    assert [number.value for number in headline.list_headline_numbers(counted)] == ["2.14", "1.90 MB", "–", "–"]
    assert headline.describe_perplexity_ratio(counted) == ""


def test_a_text_of_one_document_has_figures_without_intervals() -> None:
    alone = replace(TINY, perplexity_low=None, perplexity_high=None, ratio_low=None, ratio_high=None)
    assert headline.list_headline_numbers(alone)[2].beneath == "no interval: one document of 12,618 tokens"
    assert "1.815 times the original" in headline.describe_perplexity_ratio(alone)
