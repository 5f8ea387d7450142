"""Runs as chips: whatever was quantized is what the figures and the texts are about, until another chip is chosen."""

import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.analysis.test_squeeze import SMALL
from tests.unit.widgets.test_squeeze import stops, visitor
from workbench.jobs import run_steps
from workbench.models.perplexity import perplexity
from workbench.session import Session, SharedModel
from workbench.session.runs import ORIGINAL, SQUEEZED
from workbench.widgets.decisions.squeeze import SqueezeView
from workbench.widgets.shell.explorer import Explorer
from workbench.widgets.shell.run_bar import RunBar

__all__ = ["stops"]  # a fixture that these tests share


@pytest.fixture
def explorer(shared: SharedModel, stops: Path) -> Explorer:
    """A visitor who finds three stops, with round to nearest at two bits on the bench."""
    session = visitor(shared, stops)
    session.use(wb.recipe("rtn", bits=2, group=32))
    return Explorer(session, threaded=False)


def strip(explorer: Explorer, kind: type) -> object:
    """One of the strips above the page."""
    return next(part for part in explorer.strips if isinstance(part, kind))


def test_a_whole_model_that_was_quantized_is_what_figures_and_texts_are_about(explorer: Explorer) -> None:
    bar, squeeze = strip(explorer, RunBar), strip(explorer, SqueezeView)
    explorer.bench.all.clicks += 1
    assert explorer.notices.messages == []
    run = explorer.session.runs.current
    assert run.quantized is explorer.session.quantized_model
    assert bar.chips.value == run.label == "rtn bits=2 group=32"
    assert f"{run.quantized.bits_per_weight:.2f}" in bar.numbers.object
    assert squeeze.written_run is run
    assert squeeze.writing.original != squeeze.writing.quantized
    assert "rtn bits=2 group=32" in squeeze.pages.right.object

    bar.measure.clicks += 1
    assert explorer.notices.messages == []
    assert "tokens/s" in bar.numbers.object
    assert re.search(r"[\d.]+ × \([\d.]+ to [\d.]+\)", bar.numbers.object), "the ratio to the original's perplexity"
    assert not bar.measure.visible


def test_another_chip_shows_another_run(explorer: Explorer) -> None:
    bar, squeeze = strip(explorer, RunBar), strip(explorer, SqueezeView)
    explorer.bench.all.clicks += 1
    first = explorer.session.quantized_model
    explorer.live.choose(lambda: explorer.session.use(wb.recipe("rtn", bits=4, group=32)))
    explorer.bench.all.clicks += 1
    assert list(bar.chips.options.values()) == [ORIGINAL, "rtn bits=2 group=32", "rtn group=32"]
    bar.chips.value = "rtn bits=2 group=32"
    assert explorer.session.quantized_model is first
    assert explorer.session.latest() == dict(first.layers)
    assert squeeze.written_run.quantized is first
    bar.chips.value = ORIGINAL
    assert squeeze.writing.original == squeeze.writing.quantized


def test_single_layers_are_one_run_that_grows(explorer: Explorer) -> None:
    bar, names = strip(explorer, RunBar), explorer.session.model.layer_names
    for name in names[:2]:
        explorer.live.choose(lambda name=name: explorer.session.select(name))
        explorer.bench.one.clicks += 1
    assert list(bar.chips.options.values()) == [ORIGINAL, f"rtn bits=2 group=32, 2 of {len(names)} layers"]
    assert set(explorer.session.runs.current.quantized.layers) == set(names[:2])


def test_the_slider_shows_a_stop_with_its_figures(explorer: Explorer) -> None:
    bar, squeeze = strip(explorer, RunBar), strip(explorer, SqueezeView)
    squeeze.slider.value = 2
    known = squeeze.squeeze.find(SMALL[2])
    assert bar.chips.value == SQUEEZED
    for shown in (f"{known.bits_per_weight:.2f}", "1.00 nominal", f"{known.perplexity:.2f}", f"{known.fastest:,.0f} tokens/s"):
        assert shown in bar.numbers.object
    squeeze.slider.value = 1
    assert list(bar.chips.options.values()) == [ORIGINAL, SQUEEZED], "one chip for whatever stop the slider is at"


def test_the_speed_of_a_stop_that_came_with_the_package_is_measured_when_it_is_shown(
    shared: SharedModel, stops: Path, tmp_path: Path
) -> None:
    session = visitor(shared, Path(shutil.copytree(stops, tmp_path / "stops")))
    squeeze = session.shared.squeeze
    facts = {**asdict(squeeze.find(SMALL[1])), "tokens_per_second": None, "slowest": None, "fastest": None}
    del facts["stop"]
    squeeze._record(SMALL[1], facts)
    explorer = Explorer(session, threaded=False)
    bar = strip(explorer, RunBar)
    strip(explorer, SqueezeView).slider.value = 1
    assert "not measured yet" in bar.numbers.object
    assert bar.measure.visible
    bar.measure.clicks += 1
    assert explorer.notices.messages == []
    assert f"{squeeze.find(SMALL[1]).fastest:,.0f} tokens/s" in bar.numbers.object
    assert "not measured yet" not in bar.numbers.object
    assert not bar.measure.visible


def test_a_stop_that_is_not_built_has_no_figures(shared: SharedModel, tmp_path: Path) -> None:
    explorer = Explorer(visitor(shared, tmp_path), threaded=False)
    strip(explorer, SqueezeView).slider.value = 1
    assert "There is no model at 2 bits yet: press Build the stops." in strip(explorer, RunBar).numbers.object
    assert not strip(explorer, RunBar).measure.visible


def test_the_original_is_measured_once_for_all_visitors_and_found_by_the_next_server(shared: SharedModel, tmp_path: Path) -> None:
    one = visitor(shared, tmp_path)
    assert one.runs.headline() is None
    for _ in one.runs.headline_steps(one.runs.current, "Once"):
        pass
    figures = one.runs.headline()
    assert figures.ratio == 1
    assert Session(one.shared).runs.headline() == figures
    assert visitor(shared, tmp_path).runs.headline() == figures


def test_a_run_is_measured_though_another_is_shown_meanwhile(shared: SharedModel, tmp_path: Path) -> None:
    session = visitor(shared, tmp_path)  # nothing is known of the original, which is then measured first
    session.use(wb.recipe("rtn", bits=2, group=32))
    run_steps(session.quantize_model_steps())
    runs, run = session.runs, session.runs.current
    steps = runs.headline_steps(run, "Once")
    next(steps)
    session.show_run(ORIGINAL)
    run_steps(steps)
    session.show_run(run.label)
    read = perplexity(runs.model(run), runs.shared.squeeze.evaluation).perplexity
    assert runs.headline().perplexity == pytest.approx(read)
    assert runs.headline().ratio != 1


def test_a_run_that_is_being_measured_is_not_begun_again(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    bar, begun = strip(explorer, RunBar), []
    monkeypatch.setattr(RunBar, "measures_alone", True)
    monkeypatch.setattr(bar.jobs, "run", lambda *arguments, **settings: begun.append(arguments))
    explorer.bench.all.clicks += 1
    bar.live.announce("run")  # as when a stop of the slider has been built
    bar.live.announce("results")
    assert len(begun) == 1


def test_a_run_that_there_is_not_is_a_sentence(session: Session) -> None:
    with pytest.raises(wb.errors.WorkbenchError, match=r"there is no run 'mine'; there are 'original'"):
        session.show_run("mine")
