"""The card's page stands alone: nothing is loaded from elsewhere, and each figure has a table with headers and a caption."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import pytest

import workbench as wb
from workbench.errors import OutputError
from workbench.models import ModelHandle
from workbench.quantized import format_percent
from workbench.views.decisions.offline_page import encode_script_json
from workbench.views.decisions.quant_card import Card, card
from workbench.views.theme import DARK, LIGHT

LIMIT_BYTES = 6_000_000


@pytest.fixture(scope="module")
def made(builtin: ModelHandle) -> Card:
    quantized = wb.quantize_model(builtin, wb.recipe("rtn", bits=3, group=64), layers="*.0.mlp.*")
    return card(quantized, builtin, tokens=64)


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def tags(made: Card) -> Tags:
    return Tags(made.html())


def outside(tags: Tags) -> list[str]:
    """Addresses that a browser would load."""
    given = [value or "" for _, own in tags.found for name, value in own.items() if name in ("src", "href", "data")]
    return [address for address in given if urlparse(address).scheme in ("http", "https") or address.startswith("//")]


def test_nothing_is_loaded_from_elsewhere(tags: Tags) -> None:
    assert outside(tags) == []
    policy = next(own["content"] or "" for own in tags.of("meta") if own.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_something_from_elsewhere_is_noticed() -> None:
    assert outside(Tags('<script src="https://cdn.plot.ly/plotly.js"></script>')) == ["https://cdn.plot.ly/plotly.js"]


def test_the_page_is_of_a_size_to_attach(made: Card, tmp_path: Path) -> None:
    assert made.save(tmp_path / "card.html").stat().st_size < LIMIT_BYTES


def test_every_figure_has_a_plot_and_a_table(made: Card, tags: Tags) -> None:
    plots = {own["id"]: own for own in tags.of("div") if (own.get("id") or "").startswith("plot-")}
    assert list(plots) == ["plot-ledger", "plot-errors", "plot-perplexity"]
    assert all(own["role"] == "group" and own["aria-label"] for own in plots.values())
    assert len(tags.of("caption")) == len(tags.of("table")) >= len(plots)
    assert {own.get("scope") for own in tags.of("th")} == {"row", "col"}
    heads = {own["id"] for own in tags.of("h2")}
    assert {own["aria-labelledby"] for own in tags.of("section")} == heads
    assert len(tags.of("h1")) == 1
    assert tags.of("html") == [{"lang": "en"}]


def test_both_modes_are_drawn(made: Card) -> None:
    page = made.html()
    assert "prefers-color-scheme" in page
    assert LIGHT.quantized in page
    assert DARK.quantized in page


@pytest.mark.parametrize("name", ["card.html", "card.json"])
def test_a_saved_card_comes_back(made: Card, tmp_path: Path, name: str) -> None:
    assert Card.read(made.save(tmp_path / name)).facts == made.facts


def test_text_cannot_end_the_script_it_stands_in() -> None:
    assert encode_script_json({"writes": "</script><b>"}) == '{"writes": "\\u003c/script>\\u003cb>"}'


def test_the_sentence_has_the_figures(made: Card) -> None:
    found = made.facts["figures"]
    assert f"perplexity {found['perplexity']:.2f} (no interval: one document of 64 tokens)" in made.answer
    assert f"{made.facts['ledger']['bits_per_weight']:.2f} stored bits per weight" in made.answer
    assert f"in {format_percent(made.facts['coverage'])} of the weights; the other " in made.answer


def test_a_card_of_an_earlier_release_says_no_share(made: Card) -> None:
    earlier = {name: fact for name, fact in made.facts.items() if name not in ("coverage", "unquantized", "bits_overall")}
    assert " nominal): perplexity" in Card(earlier).answer


def test_what_was_not_measured_is_not_drawn(builtin: ModelHandle, made: Card) -> None:
    bare = Card(made.facts | {"figures": None})
    assert list(bare.figures()) == ["ledger", "errors"]
    assert "perplexity was not measured" in bare.answer
    assert re.search("<h2[^>]*>What do both models write", bare.html()) is None


def test_another_ending_is_an_error(made: Card, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be saved as 'card.pdf'; use a name that ends in .html or .json"):
        made.save(tmp_path / "card.pdf")
