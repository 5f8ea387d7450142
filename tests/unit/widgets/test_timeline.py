"""The scrubber without a server: it moves to both ends, plays, and says when there is nothing to step through."""

import pytest

import workbench as wb
from workbench.jobs import run_steps
from workbench.session import Session
from workbench.widgets.base.live import Live
from workbench.widgets.method.timeline import ScrubberView


@pytest.fixture
def view(session: Session) -> ScrubberView:
    session.use(wb.recipe("gptq", bits=2, group=32))
    run_steps(session.quantize_steps())
    return ScrubberView(Live(session), threaded=False)


def press(view: ScrubberView, name: str) -> int:
    view.buttons[name].clicks += 1
    return int(view.step.value)


def test_buttons_move_and_stop_at_the_ends(view: ScrubberView) -> None:
    last = len(view.moments)
    assert last > 5
    assert [press(view, name) for name in ("Back", "Next", "Next", "Back", "Last", "Next", "First")] == [
        1,
        2,
        3,
        2,
        last,
        last,
        1,
    ]
    assert view.step.end == last


def test_every_step_is_drawn(view: ScrubberView) -> None:
    first = view.picture.figure
    press(view, "Last")
    assert view.picture.figure.answer != first.answer
    assert view.losses.figure.plot["layout"]["shapes"][0]["x0"] == len(view.moments)
    view.what.value = "flipped signs"
    assert view.picture.figure.plot["data"][0]["zmax"] == 1


def test_playing_goes_to_the_end_and_begins_again_there(view: ScrubberView) -> None:
    view.play.value = True
    assert view.play.label == "Pause"
    for _ in view.moments:
        view._next()
    assert (view.play.value, view.step.value) == (False, len(view.moments))
    view.play.value = True
    assert view.step.value == 1
    view.look(False)
    assert not view.play.value, "behind another tab nothing is played"


def test_another_layer_has_its_own_run(view: ScrubberView) -> None:
    press(view, "Last")
    view.live.choose(lambda: view.session.select("model.layers.0.mlp.down_proj"))
    assert "press Quantize this layer" in view.picture.answer.object
    assert not view.controls.visible
    run_steps(view.session.quantize_steps())
    view.live.announce("results")
    assert view.controls.visible
    assert view.step.value <= len(view.moments)


def test_a_whole_model_is_filmed_layer_by_layer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.session.CALIBRATION_TOKENS", 256)
    session.use(wb.recipe("btc", bits=0.8))
    run_steps(session.quantize_model_steps())
    for name in session.model.layer_names[:3]:
        session.select(name)
        assert session.trace.coding_trace.cols == session.model.layer(name).cols
        assert session.trace.coding_trace.rounds


def test_a_result_from_elsewhere_has_no_run(session: Session) -> None:
    session.take(wb.quantize_model(session.model, session.recipe))
    view = ScrubberView(session)
    assert "was not computed in this session" in view.picture.answer.object
