"""What a notebook's cell shows of a result: short text, a page's HTML with every letter escaped, and figures without a kernel."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import workbench as wb
from workbench.cell_display import CellSummary, ShownInCell
from workbench.kernels.forced_backend import VARIABLE
from workbench.models import ModelHandle
from workbench.views.decisions import bit_ledger
from workbench.views.figure import PLOTLY, Figure

LAYER = "model.layers.0.mlp.down_proj"
NAMES = ["model", "layer", "ledger", "what-if", "divergence", "quantized", "packed", "plan", "allocation", "card", "figure"]


@pytest.fixture(scope="module")
def values(builtin: ModelHandle, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "reference")
        text, tiny = wb.text("evaluation"), wb.open_model(tiny_models["llama"])
        effect = wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=2), text, tokens=60)
        quantized = wb.quantize_model(tiny, wb.recipe("rtn", bits=3, group=32))
        sizes = tiny.layers()[["name", "parameters"]]
        options = sizes.assign(recipe="rtn 3", bits=3 * sizes["parameters"], kl=0.1)
        ledger = effect.layer.ledger
        return {
            "model": builtin,
            "layer": effect.layer,
            "ledger": ledger,
            "what-if": effect,
            "divergence": effect.divergence,
            "quantized": quantized,
            "packed": wb.load(wb.save(quantized, tmp_path_factory.mktemp("saved") / "out", tiny)),
            "plan": wb.LayerPlan(tuple((f"*.{number}.*", wb.recipe("rtn", bits=2)) for number in range(42))),
            "allocation": wb.allocate(options, {"rtn 3": wb.recipe("rtn", bits=3, group=32)}, 8),
            "card": wb.card(quantized, tiny, measured=False),
            "figure": bit_ledger.draw_bit_ledger(ledger, scope="this layer"),
        }


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_shows_a_few_lines_of_text_and_a_table(values: dict[str, Any], name: str) -> None:
    bundle = values[name]._repr_mimebundle_()
    plain, html = bundle["text/plain"], bundle["text/html"]
    assert 1 <= len(plain.splitlines()) <= 5
    assert len(plain) <= 900
    assert "tensor(" not in plain + html
    assert len(html) <= 12_000
    assert html.count("<tr>") in range(2, 13)
    assert unclosed(html) == []
    assert len(repr(values[name])) <= 900 or name == "plan"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_asked_for_is_given(values: dict[str, Any], name: str) -> None:
    assert set(values[name]._repr_mimebundle_(include={"text/plain"})) == {"text/plain"}
    assert "text/html" not in values[name]._repr_mimebundle_(exclude={"text/html"})


def test_it_says_the_figures_of_the_value(values: dict[str, Any]) -> None:
    layer = values["layer"]
    bundle = layer._repr_mimebundle_()
    assert bundle["text/plain"].startswith(f"How was {LAYER} quantized?\n{layer.bits_per_weight:.2f} stored bits per weight")
    assert "wb.recipe(&#x27;rtn&#x27;, bits=2" in bundle["text/html"]
    assert "and 32 more" in values["plan"]._repr_mimebundle_()["text/html"]


def test_a_figure_is_drawn_by_a_page_without_a_kernel(values: dict[str, Any]) -> None:
    figure = values["figure"]
    bundle = figure._repr_mimebundle_()
    plot = json.loads(json.dumps(bundle[PLOTLY], allow_nan=False))  # what a saved notebook holds
    assert [trace["type"] for trace in plot["data"]] == [trace["type"] for trace in figure.plot["data"]]
    assert figure.question in plot["layout"]["title"]["text"]
    assert "title" not in figure.plot["layout"], "the figure itself stays as it is"
    for word in (figure.question, figure.table.columns[0]):
        assert word in bundle["text/html"]


def test_a_long_answer_is_broken_into_lines_above_the_plot() -> None:
    answer = "All 42 layers together cost more than each alone. " * 8
    plot = {"data": [], "layout": {"margin": {"t": 16}, "height": 400}}
    layouts = [
        Figure("Which?", text, plot, pd.DataFrame())._repr_mimebundle_()[PLOTLY]["layout"] for text in ("It is layer 3.", answer)
    ]
    question, *lines = layouts[1]["title"]["text"].split("<br>")
    assert question == "Which?"
    assert " ".join(re.sub("</?sub>", "", line) for line in lines).split() == answer.split()
    assert max(len(line) for line in lines) < 125
    short, long = ({"room": layout["margin"]["t"] - 16, "added": layout["height"] - 400} for layout in layouts)
    assert short["room"] == short["added"] < long["room"] == long["added"]
    assert [round((1 - layout["title"]["y"]) * layout["height"]) for layout in layouts] == [28, 28], "pixels from the top"


def test_a_figure_holds_what_plain_json_does_not(values: dict[str, Any]) -> None:
    import numpy as np

    plot = {"data": [{"type": "scatter", "y": np.array([1.0, float("nan")])}], "layout": {}}
    bundle = Figure("?", "!", plot, pd.DataFrame({"y": [1.0]}))._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[PLOTLY], allow_nan=False))["data"][0]["y"] == [1.0, None]


def test_tokens_are_shown_letter_by_letter() -> None:
    class Hostile(ShownInCell):
        def cell_summary(self) -> CellSummary:
            return CellSummary("<s> & co?", "<script>alert(1)</script>", ("<b>",), [("<img src=x>",)])

    html = Hostile()._repr_mimebundle_()["text/html"]
    assert not re.search("<(s|script|b|img)[ >]", html)
    figure = Figure("<s>?", "</s>", {"data": [], "layout": {}}, pd.DataFrame({"<i>": ["<u>"]}))
    bundle = figure._repr_mimebundle_()
    assert "<s>" not in bundle[PLOTLY]["layout"]["title"]["text"]
    assert not re.search("</?(s|i|u)>", bundle["text/html"])


def unclosed(html: str) -> list[str]:
    """Elements that are opened and not closed."""
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag != "br":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(html)
    return open_tags
