"""Two runs compared: the one on show and a second one, in the figures, texts, map, weights, errors and ledger."""

from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from tests.unit.widgets.test_run_bar import strip
from tests.unit.widgets.test_squeeze import stops, visitor
from workbench.jobs import run_steps
from workbench.models.perplexity import compute_perplexity_ratio, perplexity
from workbench.session import Session, SharedModel
from workbench.session.runs import ORIGINAL, SQUEEZED
from workbench.widgets.decisions.squeeze import SqueezeView
from workbench.widgets.shell.explorer import Explorer
from workbench.widgets.shell.run_bar import RunBar

__all__ = ["stops"]  # a fixture that these tests share
FINE, COARSE = "rtn group=32", "rtn bits=2 group=32"


@pytest.fixture
def explorer(shared: SharedModel, stops: Path) -> Explorer:
    """A visitor who has quantized the whole model to four bits and then to two, and compares the two."""
    session = visitor(shared, stops)
    for bits in (4, 2):
        session.use(wb.recipe("rtn", bits=bits, group=32))
        run_steps(session.quantize_model_steps())
    explorer = Explorer(session, threaded=False)
    strip(explorer, RunBar).beside.value = FINE
    assert explorer.notices.messages == []
    return explorer


def test_the_original_is_compared_with_unless_another_run_is(explorer: Explorer) -> None:
    bar, runs = strip(explorer, RunBar), explorer.session.runs
    assert (runs.label, runs.reference.label) == (COARSE, FINE)
    assert bar.comparison.visible
    bar.chips.value = ORIGINAL
    assert runs.reference.label == ORIGINAL, "the original is compared with nothing"
    assert not bar.comparison.visible
    bar.chips.value = COARSE
    assert (runs.reference.label, bar.beside.value) == (FINE, FINE)
    with pytest.raises(wb.errors.WorkbenchError, match=r"there is no run 'mine'"):
        runs.compare_with("mine")


def test_figures_have_their_differences_and_a_paired_ratio(explorer: Explorer) -> None:
    bar, runs = strip(explorer, RunBar), explorer.session.runs
    here, there = (runs.items[label].quantized.bits_per_weight for label in (COARSE, FINE))
    assert f"{here - there:.2f}".replace("-", "−") in bar.numbers.object
    assert "times" not in bar.numbers.object, "nothing is measured yet"
    for label in (FINE, COARSE):
        run_steps(runs.headline_steps(runs.items[label], "Once"))
    bar.refresh()
    reads = [perplexity(runs.model(runs.items[label]), runs.shared.squeeze.evaluation) for label in (FINE, COARSE)]
    ratio = compute_perplexity_ratio(*reads)
    assert runs.perplexity_ratio().interval == pytest.approx(ratio.interval)
    assert f"{ratio.ratio:#.4g} times {FINE}&#x27;s (95 %: {ratio.interval[0]:.4g} to" in bar.numbers.object


def test_a_stop_has_a_ratio_without_interval(explorer: Explorer) -> None:
    runs = explorer.session.runs
    run_steps(runs.headline_steps(runs.items[FINE], "Once"))
    strip(explorer, SqueezeView).slider.value = 2
    ratio = runs.perplexity_ratio()
    assert ratio.ratio == pytest.approx(runs.headline().perplexity / runs.headline(runs.items[FINE]).perplexity)
    assert ratio.interval is None
    assert "no paired interval" in strip(explorer, RunBar).numbers.object


def test_both_write(explorer: Explorer) -> None:
    squeeze = strip(explorer, SqueezeView)
    assert (squeeze.written_beside.label, squeeze.written_run.label) == (FINE, COARSE)
    assert (f">{FINE}<" in squeeze.pages.left.object, f">{COARSE}<" in squeeze.pages.right.object) == (True, True)
    assert f"in “{FINE}”" in squeeze.pages.sentence.object
    texts = explorer.bring("Text")
    texts.go.clicks += 1
    assert explorer.notices.messages == []
    fine = explorer.session.runs.items[FINE].quantized
    reference = explorer.session.runs.model(explorer.session.runs.reference)
    assert dict(fine.layers) == dict(explorer.session.compared.reference_layers())
    ids = reference.encode(explorer.session.choice.prompt)
    first = next(reference.new_tokens(ids, 1))
    assert texts.writing.original[0].id == first
    assert f">{FINE}<" in texts.pages.left.object


def test_the_map_is_coloured_by_the_difference(explorer: Explorer) -> None:
    browser, runs = explorer.layers, explorer.session.runs
    assert browser.colour.value == "error_difference"
    table = browser.frame.figure.table.set_index("name")
    name = table.index[3]
    shown, beside = (runs.items[label].quantized.layers[name].output_error for label in (COARSE, FINE))
    assert table.loc[name, "error_difference"] == pytest.approx(shown - beside)
    heat = browser.frame.figure.plot["data"][0]
    assert heat["zmin"] == -heat["zmax"]
    assert "14 more (orange)" in browser.frame.answer.object
    browser.colour.value = "bits_difference"
    assert table["bits_difference"].tolist() == pytest.approx([-2.0] * 14, abs=0.1)
    strip(explorer, RunBar).beside.value = ORIGINAL
    assert browser.colour.value == "output_error", "there is no difference any more"


def test_views_of_a_layer_show_both_runs(explorer: Explorer) -> None:
    name = explorer.session.layer
    histogram = explorer.bring("Weights")["Histogram"].frame.figure
    runs = explorer.session.runs
    assert [trace["name"] for trace in histogram.plot["data"]] == ["original", "quantized", FINE]
    values = runs.items[FINE].quantized.layers[name].weight()
    assert histogram.table["beside"].sum() == values.numel()
    assert np.count_nonzero(histogram.table["beside"]) > np.count_nonzero(histogram.table["quantized"])
    assert f"Orange is “{COARSE}”, the dark line “{FINE}”" in histogram.answer

    errors = explorer.bring("Error").layers.figure
    assert errors.plot["data"][0]["customdata"][0][0][2].startswith(f"<br>{FINE}: ")
    assert f"“{COARSE}” has the smaller error in 0 of 14 layers and “{FINE}” in 14" in errors.answer

    ledger = explorer.bring("Ledger")
    table = ledger.frame.figure.table.set_index("item")
    assert table.loc["uniform codes", ["bits_beside", "bits_shown", "bits_difference"]].tolist() == [4, 2, -2]
    ledger.scope.value = "the whole model"
    assert ledger.frame.figure.table["bits_beside"].sum() == pytest.approx(runs.items[FINE].quantized.bits_per_weight)


def test_another_chip_is_what_views_of_a_layer_show_until_the_bench_changes(explorer: Explorer) -> None:
    session = explorer.session
    strip(explorer, RunBar).chips.value = FINE
    assert session.recipe == wb.recipe("rtn", bits=2, group=32)
    assert session.compared.shown is session.runs.items[FINE].quantized.layers[session.layer]
    session.use(wb.recipe("rtn", bits=3, group=32))
    assert session.compared.shown is session.result is None
    assert session.compared.labels == (FINE, "the recipe on the bench")


def test_a_stop_that_is_compared_with_stays_where_the_slider_was(explorer: Explorer) -> None:
    squeeze, bar, runs = strip(explorer, SqueezeView), strip(explorer, RunBar), explorer.session.runs
    squeeze.slider.value = 1
    bar.beside.value = SQUEEZED
    squeeze.slider.value = 2
    assert runs.reference.label == bar.beside.value == "stop at 2 bits"
    assert runs.reference.stop == squeeze.squeeze.stops[1]
    shown, beside = (squeeze.squeeze.quantized_at(stop) for stop in (squeeze.squeeze.stops[2], squeeze.squeeze.stops[1]))
    name = explorer.session.layer
    difference = explorer.layers.frame.figure.table.set_index("name").loc[name, "bits_difference"]
    assert difference == pytest.approx(shown.layers[name].bits_per_weight - beside.layers[name].bits_per_weight)


def test_a_stop_of_a_large_model_is_not_read_for_the_map(
    shared: SharedModel, stops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Session = visitor(shared, stops)
    session.show_stop(session.shared.squeeze.stops[2])
    assert len(session.compared.layers()) == 14
    monkeypatch.setattr(SharedModel, "is_small", False)
    assert session.compared.layers() == {}


def test_a_run_can_be_compared_with_itself(explorer: Explorer) -> None:
    squeeze, bar = strip(explorer, SqueezeView), strip(explorer, RunBar)
    for label in (COARSE, FINE):
        bar.beside.value = bar.chips.value = label
        assert explorer.notices.messages == []
    assert squeeze.writing.original == squeeze.writing.quantized
    assert "All 14 layers have the same error in both runs." in explorer.layers.frame.answer.object
