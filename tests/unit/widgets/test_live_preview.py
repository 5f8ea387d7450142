"""The live preview: of the whole layer where it is small, of a few rows otherwise; the latest setting wins."""

import pytest
import torch

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.jobs import Job
from workbench.session import Session, SharedModel
from workbench.widgets.shell.explorer import Explorer

FINER = wb.recipe("rtn", bits=3, group=32)


@pytest.fixture
def explorer(session: Session, shared: SharedModel) -> Explorer:
    """Previews are on, and the calibration text has been read."""
    shared.stats()
    explorer = Explorer(session, threaded=False)
    explorer.bench.preview.on.value = True
    return explorer


def test_a_small_layer_is_previewed_whole_and_every_figure_follows(explorer: Explorer) -> None:
    explorer.bench.form.settings["bits"].value = 3
    preview = explorer.session.preview
    assert preview is not None
    assert preview.is_whole
    assert explorer.result is preview.result
    made = Job(explorer.session.quantize_steps).run_here().result()
    torch.testing.assert_close(made.weight(), preview.result.weight(), rtol=0, atol=0)
    assert f"<b>{preview.result.bits_per_weight:.2f}</b> stored bits" in explorer.bench.preview.shown.object
    assert [trace["name"] for trace in explorer.tabs["Weights"]["Histogram"].frame.figure.plot["data"]] == [
        "original",
        "quantized",
    ]


def test_a_preview_is_no_result_of_the_session(explorer: Explorer) -> None:
    explorer.bench.form.settings["bits"].value = 3
    assert explorer.session.results == {}
    explorer.bench.form.settings["bits"].value = 4
    assert explorer.result.recipe.settings == (("group", 32),), "bits 4 is the preset's own"
    explorer.session.undo()
    assert explorer.session.preview is None, "only the latest is kept"


def test_a_large_layer_is_previewed_by_rows_from_all_over_it(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.preview.WEIGHTS", 64 * 8)
    explorer.bench.form.settings["bits"].value = 3
    preview = explorer.session.preview
    assert list(preview.rows) == [4, 12, 20, 28, 36, 44, 52, 60]
    assert explorer.result is None, "a few rows are no result of the layer"
    assert "weight error" in explorer.bench.preview.shown.object
    assert "8 of 64 rows" in explorer.bench.preview.shown.object
    assert not explorer.live.waiting

    whole = Job(explorer.session.quantize_steps).run_here().result()
    torch.testing.assert_close(preview.result.weight(), whole.weight()[list(preview.rows)], rtol=0, atol=0)
    low, high = preview.interval
    assert low < preview.result.relative_error < high
    assert low < whole.relative_error < high, "the interval is one of the whole layer's error"


def test_the_histogram_of_a_large_layer_follows_the_preview_and_says_so(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.session.preview.WEIGHTS", 64 * 8)
    frame = explorer.tabs["Weights"]["Histogram"].frame
    explorer.bench.form.settings["bits"].value = 3
    original, quantized = (trace["y"] for trace in frame.figure.plot["data"])
    assert sum(quantized) == sum(original), "scaled up from 8 rows to 64"
    assert "a preview of 8 of 64 evenly spaced rows, scaled up" in frame.answer.object
    explorer.bench.one.clicks += 1
    assert "preview" not in frame.answer.object


def test_figures_wait_greyed_until_the_preview_is_there(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, drawn, looks = explorer.tabs["Weights"]["Histogram"], [], []
    refresh, steps = weights.refresh, explorer.session.preview_steps
    monkeypatch.setattr(weights, "refresh", lambda: (drawn.append(explorer.result), refresh()))

    def watched_steps() -> object:
        weights.changed()
        looks.append((weights.view.styles["opacity"], explorer.live.waiting, len(drawn)))
        return (yield from steps())

    monkeypatch.setattr(explorer.session, "preview_steps", watched_steps)
    weights.view.styles = {"opacity": "1"}
    explorer.live.choose(lambda: explorer.session.use(FINER))
    assert looks == [("0.45", True, 0)]
    assert weights.view.styles["opacity"] == "1"
    assert drawn
    assert all(result is explorer.session.preview.result for result in drawn), "never drawn without it"


def test_a_setting_that_does_not_fit_greys_nothing(explorer: Explorer) -> None:
    explorer.live.choose(lambda: explorer.session.use(wb.recipe("rtn", bits=2, group=7)))
    assert not explorer.live.waiting
    assert explorer.tabs["Weights"]["Histogram"].view.styles["opacity"] == "1"
    assert explorer.bench.problem.visible


def test_without_calibration_a_large_model_says_what_to_do(shared: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.shared.SMALL", 1000)
    explorer = Explorer(Session(SharedModel(shared.model)), threaded=False)
    explorer.bench.preview.on.value = True
    assert "press Quantize this layer" in explorer.bench.preview.shown.object
    with pytest.raises(WorkbenchError, match="previews start after calibration"):
        next(explorer.session.preview_steps())
