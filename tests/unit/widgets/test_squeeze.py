"""The squeeze strip without a server: honest about what is not built, real texts for what is, and a way into the other views."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.analysis.test_squeeze import SMALL, STORY
from workbench.analysis.decisions.squeeze import Squeeze, SqueezeStep
from workbench.analysis.predictions.generation import write_together
from workbench.jobs import run_steps
from workbench.session import Session, SharedModel
from workbench.store import Store
from workbench.widgets.decisions.squeeze import WRITING_QUESTION, WRITTEN_TOKENS, SqueezeView
from workbench.widgets.shell.explorer import Explorer


def visitor(shared: SharedModel, folder: Path) -> Session:
    """A visitor of a server whose store is in `folder`."""
    own = SharedModel(shared.model)
    own.__dict__["squeeze"] = Squeeze(shared.model, Store(folder), stops=SMALL, calibration=STORY, evaluation=STORY, tokens=64)
    return Session(own)


@pytest.fixture
def own(shared: SharedModel, tmp_path: Path) -> Session:
    """A visitor of a model whose three stops are not built."""
    return visitor(shared, tmp_path)


@pytest.fixture(scope="module")
def stops(shared: SharedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which all three are."""
    folder = tmp_path_factory.mktemp("stops")
    run_steps(visitor(shared, folder).shared.squeeze.steps())
    return folder


@pytest.fixture
def built(shared: SharedModel, stops: Path) -> SqueezeView:
    """The strip of a visitor who finds them."""
    return SqueezeView(visitor(shared, stops), threaded=False)


def test_a_stop_that_is_not_built_says_so_and_has_no_numbers(own: Session) -> None:
    view = SqueezeView(own, threaded=False)
    view.slider.value = 1
    assert list(view.slider.options) == ["32.00 stored bits", *(f"{bits} bits, not built yet" for bits in (2, 1))]
    assert "There is no model at 2 bits yet" in view.pages.sentence.object
    assert view.detail.disabled
    assert view.go.visible
    assert not any(view.writing.sides)
    view.all.value = True
    assert "press Build the stops" in view.curve.answer.object


def test_building_fills_the_slider_and_writes(own: Session) -> None:
    view = SqueezeView(own, threaded=False)
    view.go.clicks += 1
    assert view.notices.messages == []
    known = own.shared.squeeze.find(SMALL[1])
    assert list(view.slider.options)[1] == f"{known.bits_per_weight:.2f} stored bits"
    assert not view.go.visible
    assert view.writing.done
    assert view.writing.original == view.writing.quantized, "the first stop is the original"


def test_moving_the_slider_writes_with_the_model_of_the_stop(built: SqueezeView) -> None:
    built.slider.value = 2
    squeeze = built.squeeze
    *_, wanted = write_together(
        squeeze.model.language_model(), squeeze.model_at(SMALL[2]), built.session.choice.prompt, WRITTEN_TOKENS
    )
    assert built.writing == wanted
    assert WRITING_QUESTION in built.pages.sentence.object
    assert built.pages.right.object.count("<mark") == 1


def test_another_prompt_is_written_again(built: SqueezeView) -> None:
    built.slider.value = 1
    built.live.choose(lambda: built.session.ask("A bird"))
    assert built.written_prompt == "A bird"
    assert '<span class="prompt">A bird</span>' in built.pages.left.object


def test_all_stops_are_a_figure_with_a_table(built: SqueezeView) -> None:
    built.slider.value = 1
    built.all.value = True
    assert built.curve.figure.table["recipe"].tolist() == [stop.preset for stop in SMALL]
    edges = built.curve.figure.plot["data"][0]["marker"]["line"]["color"]
    assert edges[1] != edges[0] == edges[2], "the stop on the slider is outlined"


def test_a_damaged_stop_becomes_a_notice_and_is_not_built_any_more(shared: SharedModel, stops: Path, tmp_path: Path) -> None:
    own = visitor(shared, shutil.copytree(stops, tmp_path / "copy"))
    (own.shared.squeeze.folder(SMALL[1]) / "ledger.json").write_text("{}")
    view = SqueezeView(own, threaded=False)
    view.slider.value = 1
    assert "ledger.json" in view.notices.messages[0]
    assert "not built yet" in list(view.slider.options)[1]
    assert "There is no model at 2 bits yet" in view.pages.sentence.object
    assert view.go.visible


def test_why_did_it_break_takes_the_stop_into_the_other_views(shared: SharedModel, stops: Path) -> None:
    explorer = Explorer(visitor(shared, stops), threaded=False)
    (strip,) = (part for part in explorer.strips if isinstance(part, SqueezeView))
    strip.slider.value = 2
    strip.detail.clicks += 1
    assert explorer.notices.messages == []
    assert explorer.session.recipe == SMALL[2].recipe
    assert explorer.session.result.bits_per_weight == pytest.approx(
        explorer.session.quantized_model.layers[explorer.session.layer].bits_per_weight
    )
    assert explorer.tabs.front == "Text"
    strip.slider.value = 1
    explorer.bring("Error")
    strip.detail.clicks += 1
    assert explorer.tabs.front == "Text", "a tab can be asked for again"
    assert explorer.session.recipe == SMALL[1].recipe


@pytest.mark.parametrize(("weights", "told", "alone"), [(10**6, "", True), (10**9, "", False), (10**6, "ask", False)], ids=str)
def test_only_small_models_are_squeezed_without_being_asked(
    built: SqueezeView, monkeypatch: pytest.MonkeyPatch, weights: int, told: str, alone: bool
) -> None:
    monkeypatch.setenv("WORKBENCH_SQUEEZE", told)
    table = built.session.model.layers().assign(parameters=weights // len(built.session.model.layer_names))
    monkeypatch.setattr(built.session.model, "layers", lambda: table)
    assert built.session.shared.begins_alone is alone


def test_measuring_the_speed_does_not_sound_like_building(built: SqueezeView, own: Session) -> None:
    step = SqueezeStep(built.squeeze.stops[1], "measuring its speed", 0.5)
    job = SimpleNamespace(latest=step, seconds_left=3.0)
    assert built._on_step(job) == (
        "All stops are ready. Their speed on this machine is being measured, now that at 2 bits, about 3.0 s left."
    )
    job = SimpleNamespace(latest=SqueezeStep(built.squeeze.stops[1], "quantizing", 0.5), seconds_left=None)
    assert SqueezeView(own, threaded=False)._on_step(job) == "0 of 3 stops are built; at 2 bits: quantizing."
