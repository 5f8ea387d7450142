"""Studies on a small model compute their default when their tab is first in front; on a large one they say what it takes."""

import re
from collections.abc import Callable

import pytest

import workbench as wb
from workbench.analysis.decisions import study_time
from workbench.session import Session, SharedModel
from workbench.views import theme as themes
from workbench.widgets.base import component
from workbench.widgets.base.component import Component
from workbench.widgets.base.live import Live
from workbench.widgets.decisions.pareto_painter import BudgetPainter
from workbench.widgets.decisions.quant_card import CardView
from workbench.widgets.method.calibration_mixture import CalibrationView
from workbench.widgets.predictions.kv_cache import KVCacheView

STUDIES = (BudgetPainter, CalibrationView, KVCacheView, CardView)


def text_of(view: Component) -> str:
    """The sentence where a study has nothing to show."""
    return {
        BudgetPainter: lambda: view.plan.answer.object,
        CalibrationView: lambda: view.errors.answer.object,
        KVCacheView: lambda: view.frame.answer.object,
        CardView: lambda: view.sentence.object,
    }[type(view)]()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was begun on a served page, by the name of its class; nothing is run."""
    names: list[str] = []
    monkeypatch.setattr(component, "is_served", lambda: True)
    monkeypatch.setattr("panel.state.onload", lambda action: action())
    for kind in STUDIES:
        monkeypatch.setattr(kind, "begin_default", lambda self: names.append(type(self).__name__))
    return names


@pytest.mark.parametrize("kind", STUDIES)
def test_a_default_is_begun_once_when_the_tab_is_in_front(
    session: Session, begun: list[str], monkeypatch: pytest.MonkeyPatch, kind: type[Component]
) -> None:
    monkeypatch.delenv("WORKBENCH_SQUEEZE")
    view = kind(Live(session))
    assert begun == []
    view.look(False)
    assert begun == []
    for visible in (True, False, True):
        view.look(visible)
    assert begun == [kind.__name__]


@pytest.mark.parametrize("why", ["asked", "large", "a notebook"])
def test_nothing_is_begun_where_nobody_asked(
    session: Session, begun: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why != "asked":
        monkeypatch.delenv("WORKBENCH_SQUEEZE")
    if why == "large":
        monkeypatch.setattr(SharedModel, "is_small", False)
    if why == "a notebook":
        monkeypatch.setattr(component, "is_served", lambda: False)
    KVCacheView(Live(session)).look(True)
    assert begun == []


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_says_what_it_takes(session: Session, monkeypatch: pytest.MonkeyPatch, kind: type[Component]) -> None:
    session.take(wb.quantize_model(session.model, wb.recipe("rtn", bits=4, group=32)))
    sentences = []
    for speed in (1e12, 1e6):
        monkeypatch.setattr(study_time, "measure_multiplications", lambda speed=speed: speed)
        sentences.append(text_of(kind(Live(session), threaded=False)))
    assert all(re.search(r"about [\d,]+ (s|min|h)\b.* on this machine", sentence) for sentence in sentences)
    assert sentences[0] != sentences[1], "a slower machine takes longer"
    assert all(re.search(r"[Pp]ress (Measure|Read|Make)", sentence) for sentence in sentences)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.01, "about 1 s"), (42.4, "about 42 s"), (300, "about 5 min"), (5000, "about 83 min"), (36_000, "about 10 h")],
)
def test_an_estimate_is_round(seconds: float, written: str) -> None:
    assert themes.format_estimate(seconds) == written


def test_reading_takes_as_long_as_its_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e8 < study_time.measure_multiplications() < 1e14
    monkeypatch.setattr(study_time, "measure_multiplications", lambda: 1e9)
    assert study_time.estimate_reading_seconds(10**6, 500) == pytest.approx(study_time.OVERHEAD * 0.5)


def test_the_card_by_default_is_of_a_stop_where_nothing_is_quantized(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view = CardView(Live(session), threaded=False)
    view.begin_default()
    assert view.card is None, "no stop is built"
    stop = next(stop for stop in session.shared.squeeze.stops if stop.bits == 2)
    quantized = wb.quantize_model(session.model, wb.recipe("rtn", bits=2, group=32))
    quantized_stop: Callable[..., object] = lambda run: quantized if run.stop == stop else None  # noqa: E731
    monkeypatch.setattr(session.runs, "quantized", quantized_stop)
    view.tokens.value = 64
    view.begin_default()
    assert view.notices.messages == []
    assert view.card.facts["model"]["quantized_layers"] == 14
    assert "This is the card of the stop at 2 bits: nothing is quantized on the bench yet." in view.sentence.object
