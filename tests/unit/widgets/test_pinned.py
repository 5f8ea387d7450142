"""The Compare tab without a server: pin, change the recipe, pin again, unpin; nothing is pinned that is not there."""

import pytest

import workbench as wb
from workbench.jobs import run_steps
from workbench.models.text import Text
from workbench.session import Session
from workbench.widgets.base.live import Live
from workbench.widgets.predictions.pinned import PinnedView


@pytest.fixture
def view(session: Session, monkeypatch: pytest.MonkeyPatch) -> PinnedView:
    story = Text("story", ("The small dog ran to the river. " * 6, "A bird sat on the roof. " * 6))
    monkeypatch.setattr("workbench.session.session.text", lambda _: story)
    return PinnedView(Live(session), threaded=False)


def quantize(view: PinnedView, bits: int) -> None:
    view.session.use(wb.recipe("rtn", bits=bits, group=32))
    run_steps(view.session.quantize_steps())
    view.live.announce("results")


def test_without_a_result_there_is_nothing_to_pin(view: PinnedView) -> None:
    assert (view.one.disabled, view.all.disabled, view.off.disabled, view.which.disabled) == (True, True, True, True)
    assert "quantize this layer, then press Pin this result" in view.bits.answer.object
    assert "No model is pinned" in view.models.answer.object
    assert list(view.layer_table) == []


def test_results_are_pinned_side_by_side_and_taken_off(view: PinnedView) -> None:
    for bits in (2, 4):
        quantize(view, bits)
        view.one.clicks += 1
    assert view.notices.messages == []
    assert view.which.options == ["rtn bits=2 group=32", "rtn group=32"]
    assert view.which.value == "rtn group=32"
    assert view.layer_table[0].value["pin"].tolist() == view.which.options
    assert [trace["name"] for trace in view.errors.figure.plot["data"]] == view.which.options
    assert view.bits.figure.table["recipe"].tolist() == view.which.options
    view.which.value = "rtn bits=2 group=32"
    view.off.clicks += 1
    assert view.which.options == ["rtn group=32"]
    view.off.clicks += 1
    assert (view.which.options, view.off.disabled) == ([], True)
    assert list(view.layer_table) == []


def test_pins_of_another_layer_stay_but_their_weights_are_not_mixed(view: PinnedView) -> None:
    quantize(view, 2)
    view.one.clicks += 1
    view.live.choose(lambda: view.session.select("model.layers.0.mlp.down_proj"))
    assert view.bits.figure is not None
    assert "No result of this layer is pinned" in view.errors.answer.object
    assert view.one.disabled


def test_a_model_is_measured_and_pinned(view: PinnedView) -> None:
    quantize(view, 2)
    view.all.clicks += 1
    assert view.notices.messages == []
    (label,) = view.session.pins.models
    assert label.startswith("rtn bits=2 group=32, 1 of")
    assert view.which.value == label
    assert view.models.figure.table["pin"].tolist() == [label]
    assert view.model_table[0].value["pin"].tolist() == [label]
    assert not view.all.disabled
