"""The Speed tab measures the selected layer beside torch, says what runs it, and forgets what belongs to another layer."""

import pytest

import workbench as wb
from workbench.session import Session
from workbench.widgets.predictions import layer_speed
from workbench.widgets.predictions.layer_speed import MEASURE_FIRST, UNPACKED, SpeedView


@pytest.fixture
def view(session: Session, monkeypatch: pytest.MonkeyPatch) -> SpeedView:
    """The tab, quick: two formats beside the layer."""
    monkeypatch.setattr(layer_speed, "OTHERS", ("signs",))
    monkeypatch.setattr(layer_speed, "COLD_BYTES", 1 << 18)
    return SpeedView(session, threaded=False)


def test_before_anything_is_measured(view: SpeedView) -> None:
    assert view.frame.answer.object.count(MEASURE_FIRST) == 1
    assert UNPACKED in view.says.object
    assert view.frame.figure is None


def test_a_quantized_layer_stands_beside_torch(view: SpeedView, session: Session) -> None:
    for _ in session.quantize_steps():
        pass
    view.live.announce("results")
    assert "Runs on numba" in view.says.object
    assert "Cuda does not: it runs on a CUDA device" in view.says.object
    view.batch.value = 8
    view.measure()
    table = view.frame.figure.table
    assert set(table["format"]) == {"this layer", "torch-fp32", "signs"}
    assert set(table["batch"]) == {8}
    assert view.measured.to_dict()["rows"], view.measured.to_dict()["cols"] == session.original().shape
    cold = view.frame.figure
    view.memory.value = "from the cache"
    assert view.frame.figure is not cold
    session.use(wb.recipe("rtn", bits=4, group=32))
    view.live.announce("choice")
    assert view.frame.figure is None, "what was measured belongs to another recipe"


def test_other_formats_are_measured_without_a_result(view: SpeedView) -> None:
    view.measure()
    assert set(view.frame.figure.table["format"]) == {"torch-fp32", "signs"}


def test_a_stopped_measurement_shows_nothing(view: SpeedView, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(*_: object, **__: object):
        yield None
        view.jobs.cancel()
        yield None

    monkeypatch.setattr(layer_speed, "measure_kernels_steps", steps)
    view.measure()
    assert view.frame.figure is None
    assert "Cancelled" in view.jobs.words.object
