"""The weights from six sides: each follows the layer, its result and the marks."""

import pytest

import workbench as wb
from workbench.session import Session
from workbench.widgets.weights.weight_inspector import HistogramSection, SpectrumSection, WeightInspector

DOWN = "model.layers.0.mlp.down_proj"


def quantize(session: Session, **settings: object) -> Session:
    """The session with a result of the selected layer."""
    if settings:
        session.use(wb.recipe("rtn", **settings))
    for _ in session.quantize_steps():
        pass
    return session


@pytest.mark.parametrize("name", list(WeightInspector.kinds))
def test_every_section_follows_the_layer_and_its_result(session: Session, name: str) -> None:
    session.shared.stats()  # the section of channels needs inputs
    view = WeightInspector(session, threaded=False)
    view.section.value = name
    section = view[name]
    frames = list(section.frames.values()) if name == "Ranges" else [section.frame]
    before = [frame.figure for frame in frames]
    assert all(before)
    quantize(session)
    view.live.announce("results")
    after = [frame.figure for frame in frames]
    assert all(a is not b for a, b in zip(after, before, strict=True))
    view.live.choose(lambda: session.select(DOWN))
    assert [frame.figure.table.equals(old.table) for frame, old in zip(frames, after, strict=True)] == [False] * len(frames)
    assert view.notices.messages == []


def test_only_the_section_in_front_reads_the_weights(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view = WeightInspector(session, threaded=False)
    view.section.value = "Outliers"
    read, portrait = [], session.portrait
    monkeypatch.setattr(session, "portrait", lambda: read.append(1) or portrait())
    view.live.announce("results")
    assert len(read) == 1


def test_marked_rows_and_channels_are_marked_in_the_figures(session: Session) -> None:
    session.mark(rows=[3], channels=[8, 9])
    view = WeightInspector(session, threaded=False)
    view.section.value = "Ranges"
    marks = {side: [s["x0"] for s in frame.figure.plot["layout"]["shapes"]] for side, frame in view["Ranges"].frames.items()}
    assert marks == {"row": [3], "column": [8, 9]}


def test_one_row_has_its_own_histogram_levels_and_cells(session: Session) -> None:
    result = quantize(session, bits=2, group=0).result
    view = HistogramSection(session)
    view.row.value = 3
    levels = result.weight()[3].unique()
    assert "64 weights of row 3" in view.frame.answer.object
    drawn = [shape["x0"] for shape in view.frame.figure.plot["layout"]["shapes"]]
    assert drawn == [*levels.tolist(), *((levels[1:] + levels[:-1]) / 2).tolist()]


def test_a_row_that_the_next_layer_lacks_is_not_asked_of_it(session: Session) -> None:
    session.select("model.layers.0.mlp.gate_proj")
    view = HistogramSection(session)
    view.row.value = 127
    view.live.choose(lambda: session.select(DOWN))
    assert view.row.value == 63


def test_a_large_spectrum_waits_for_its_button(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.widgets.weights.weight_inspector.QUICK", 10)
    view = SpectrumSection(session)
    assert view.go.visible
    assert "press Compute" in view.frame.answer.object
    view.go.clicks += 1
    assert len(view.frame.figure.table) == 64
