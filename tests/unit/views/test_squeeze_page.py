"""The static page of a squeezed model: each stop's figures are those that were measured, and nothing is loaded from elsewhere."""

import json
import re
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.views.test_quant_card import Tags, outside
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.squeeze_page import SqueezePage, collect_page_steps
from workbench.analysis.decisions.stops import Stop
from workbench.errors import OutputError, WorkbenchError
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.store import Store
from workbench.views.decisions.squeeze_page import render_squeeze_page, save_squeeze_page

STOPS = (Stop(16, "none", 1), Stop(2, "rtn:bits=2,group=32", 1), Stop(1, "gptq:bits=1,group=32", 2))
STORY = Text("<story>", ("The small dog ran to the river. " * 6, "A bird sat on the roof and sang. " * 6))
LARGEST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def squeeze(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Squeeze:
    store = Store(tmp_path_factory.mktemp("page"))
    model = wb.open_model(tiny_models["llama"])
    return Squeeze(model, store, stops=STOPS, calibration=STORY, evaluation=STORY, tokens=64)


@pytest.fixture(scope="module")
def page(squeeze: Squeeze) -> SqueezePage:
    return run_steps(collect_page_steps(squeeze, "The <b>dog", tokens=8))


@pytest.fixture(scope="module")
def text(page: SqueezePage) -> str:
    return render_squeeze_page(page)


def read_document(text: str, name: str) -> dict:
    """A JSON document of the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_it_shows_every_stop_as_it_was_measured(page: SqueezePage, text: str, squeeze: Squeeze) -> None:
    assert [stop.squeezed for stop in page.stops] == squeeze.built_stops()
    for stop in page.stops:
        assert f"{stop.squeezed.perplexity:.2f}" in text
        assert stop.writing.done or len(stop.writing.original) == 8
    names = Tags(text).of("input")[0]["data-names"] or ""
    assert names.split("|")[0] == "32.00 stored bits (the original)"
    assert len(names.split("|")) == len(STOPS)


def test_layers_have_their_counts_before_and_after(page: SqueezePage, text: str, squeeze: Squeeze) -> None:
    layers = read_document(text, "layers")
    weights = squeeze.model.layers()["parameters"].tolist()
    assert len(layers) == len(weights)
    for layer, count in zip(layers, weights, strict=True):
        assert sum(layer["counts"]) == count
        assert layer["stops"][0]["counts"] == [], "the original is not quantized"
        assert sum(layer["stops"][1]["counts"]) == pytest.approx(count, rel=0.02)  # a few may lie beyond the axis
        assert len(layer["stops"][1]["levels"]) == 4
    assert page.stops[1].layers["relative_error"].between(0, 1).all()


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup(text: str) -> None:
    tags = Tags(text)
    assert outside(tags) == []
    assert str(Path("/")) + "tmp" not in text, "no path of this machine"
    assert not tags.of("b")
    assert "The &lt;b&gt;dog" in text
    assert "&lt;story&gt;" in text
    assert len(text.encode()) < LARGEST_BYTES


def test_it_is_written_whole_or_not_at_all(page: SqueezePage, text: str, tmp_path: Path) -> None:
    assert save_squeeze_page(page, tmp_path / "page.html").read_text() == text
    with pytest.raises(OutputError, match="is a folder"):
        save_squeeze_page(page, tmp_path)


def test_an_empty_prompt_is_a_mistake(squeeze: Squeeze) -> None:
    with pytest.raises(WorkbenchError, match="the prompt is empty"):
        run_steps(collect_page_steps(squeeze, "  "))


@pytest.mark.complete
@pytest.mark.slow
def test_the_builtin_model_fits_in_fifteen_megabytes(builtin: ModelHandle, tmp_path: Path) -> None:
    page = run_steps(collect_page_steps(Squeeze(builtin, Store(tmp_path)), "Once upon a time"))
    assert len(page.stops) == 10
    assert save_squeeze_page(page, tmp_path / "page.html").stat().st_size < LARGEST_BYTES
