"""The tabs Card, KV cache, Calibration and Expectations, without a server."""

import json
from html import escape

import pytest

import workbench as wb
from workbench.session import Session
from workbench.views.decisions.quant_card import Card
from workbench.widgets.base.live import Live
from workbench.widgets.base.notices import Notices
from workbench.widgets.decisions.quant_card import CardView
from workbench.widgets.decisions.scaling_law import ExpectationsView
from workbench.widgets.method.calibration_mixture import CalibrationView
from workbench.widgets.predictions.kv_cache import KVCacheView

DOWN = "model.layers.0.mlp.down_proj"


def press(button: object) -> None:
    button.clicks += 1  # type: ignore[attr-defined]


@pytest.fixture
def live(session: Session) -> Live:
    return Live(session)


@pytest.fixture
def notices() -> Notices:
    return Notices()


def test_a_card_of_what_is_quantized(live: Live, notices: Notices, monkeypatch: pytest.MonkeyPatch) -> None:
    view = CardView(live, notices=notices, threaded=False)
    assert "quantize a layer or the whole model on the bench first" in view.sentence.object
    press(view.go)
    assert "nothing is quantized yet" in notices.messages[0]
    session = live.session
    session.take(wb.quantize_model(session.model, wb.recipe("rtn", bits=4, group=32)))
    live.announce("results")
    view.tokens.value = 64
    press(view.go)
    assert view.card is not None
    assert view.card.facts["figures"]["tokens"] == 64
    assert escape(view.card.answer) in view.sentence.object
    assert view.frames["perplexity"].figure is not None
    sent: dict[str, str] = {}
    monkeypatch.setattr(view.delivery, "send", sent.__setitem__)
    press(view.data)
    press(view.page)
    assert json.loads(sent["card.json"]) == view.card.facts
    assert sent["card.html"].startswith("<!doctype html>")
    view.other.param.update(filename="other.json", value=view.card.json().encode())
    assert "agree in everything except times" in view.difference[0].object
    changed = {**view.card.facts, "hashes": {**view.card.facts["hashes"], "evaluation_text": "another"}}
    view.other.param.update(filename="other.json", value=Card(changed).json().encode())
    assert "differ beyond the tolerances in 1 place (hashes)" in view.difference[0].object
    view.other.param.update(filename="none.json", value=b"{}")
    assert "none.json is not a quant card" in notices.messages[0]
    session.take(wb.quantize_model(session.model, wb.recipe("rtn", bits=3, group=32)))
    live.announce("results")
    assert "Results have changed since" in view.sentence.object


def test_caches_are_measured_and_written_through(live: Live, notices: Notices) -> None:
    view = KVCacheView(live, notices=notices, threaded=False)
    assert view.frame.figure is None
    view.schemes.value, view.tokens.value, view.block.value = ["none", "rotated:bits=2"], 64, 16
    press(view.go)
    assert view.frame.figure is not None
    assert view.frame.figure.table["scheme"].tolist() == ["none", "rotated:bits=2"]
    assert view.which.options == ["none", "rotated:bits=2"]
    view.which.value = "rotated:bits=2"
    press(view.write_on)
    assert "first" in view.pages.sentence.object or "token" in view.pages.sentence.object.lower()
    view.other.value = "kivi:bits=3"
    assert view.schemes.value[-1] == "kivi:bits=3"
    view.other.value = "zipcash"
    assert "unknown kv 'zipcash'" in notices.messages[0]
    view.schemes.value = []
    press(view.go)
    assert "no scheme is selected" in notices.messages[0]


def test_sliders_mix_the_texts(live: Live, notices: Notices) -> None:
    view = CalibrationView(live, notices=notices, threaded=False)
    assert "Press Read the texts" in view.errors.answer.object
    view.tokens.value = 100
    press(view.go)
    assert view.errors.figure is not None
    first = view.errors.figure.table
    assert first["weight"].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    slider = view.sliders["evaluation"]
    slider.value = 100
    second = view.errors.figure.table
    assert second["weight"].tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert second["own"].tolist() == first["own"].tolist()
    live.choose(lambda: live.session.select(DOWN))
    assert view.spectrum.figure is not None
    assert view.spectrum.figure.table["rank"].max() == 128
    for slider in view.sliders.values():
        slider.value = 0
    assert "are not a mixture" in notices.messages[0]
    view.sliders["calibration"].value = 100
    view.which.value = "evaluation"
    view.tokens.value = 2000
    press(view.rank)
    assert view.documents.figure is not None
    assert len(view.documents.figure.table) > 1


def test_a_text_of_ones_own_becomes_a_source(live: Live, notices: Notices) -> None:
    view = CalibrationView(live, notices=notices, threaded=False)
    view.file.param.update(filename="mine.txt", value=b"Tom sang.<|endoftext|>The cat slept in the sun.")
    assert list(view.sliders)[-1] == "mine.txt"
    view.file.param.update(filename="bad.txt", value=b"\xff\xfe")
    assert "bad.txt is not UTF-8" in notices.messages[0]


def test_expectations_follow_the_fields(live: Live, notices: Notices) -> None:
    view = ExpectationsView(live, notices=notices, threaded=False)
    figure = view.frame.figure
    assert figure is not None
    assert "so this is an extrapolation" in figure.answer
    view.parameters.value, view.tokens.value = 1000.0, 100_000.0
    assert view.frame.figure is not None
    assert "guess" not in view.frame.figure.answer
    view.parameters.value = 0.0
    assert "give numbers above 0" in notices.messages[0]
