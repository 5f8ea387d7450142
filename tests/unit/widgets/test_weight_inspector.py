"""The weights from six sides: each follows the layer, its result and the marks; the window zooms to single weights."""

import pytest
import torch

import workbench as wb
from workbench.session import Session
from workbench.widgets.weights.weight_inspector import HistogramSection, PictureSection, SpectrumSection, WeightInspector

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
    view.section.value = "Picture"
    assert len(view["Picture"].frame.figure.plot["layout"]["shapes"]) == 3
    view.live.mark(channels=[])
    assert len(view["Picture"].frame.figure.plot["layout"]["shapes"]) == 1


@pytest.mark.parametrize("what", ["original", "quantized", "difference"])
def test_the_picture_shows_what_is_asked(session: Session, what: str) -> None:
    view = PictureSection(session)
    view.what.value = what
    assert (view.frame.figure is None) == (what != "original")
    result = quantize(session).result
    view.live.announce("results")
    original, quantized = session.original(), result.weight()
    shown = {"original": original, "quantized": quantized, "difference": quantized - original}[what]
    largest = shown.flatten()[shown.abs().argmax()].item()
    expected = f"{largest:+.3g}" if what == "difference" else f"{abs(largest):.3g}"
    assert expected in view.frame.answer.object


def test_fields_boxes_and_a_double_click_zoom(session: Session) -> None:
    session.select(DOWN)
    view = PictureSection(session)
    top, bottom, left, right = view.edges
    top.value, bottom.value, left.value, right.value = 5, 8, 100, 103
    torch.testing.assert_close(torch.tensor(view.frame.figure.plot["data"][0]["z"]), session.original()[5:9, 100:104].abs())
    assert "4 × 4 weights, single weights" in view.frame.answer.object
    view.frame.plot.relayout_data = {
        "xaxis.range[0]": 9.7,
        "xaxis.range[1]": 20.2,
        "yaxis.range[0]": 31.4,
        "yaxis.range[1]": 11.6,
    }
    assert [edge.value for edge in view.edges] == [12, 31, 10, 20]
    bottom.value = 2
    assert "11 × 11 weights" in view.frame.answer.object, "edges may be written in any order"
    view.frame.plot.relayout_data = {"xaxis.autorange": True, "yaxis.autorange": True}
    assert [edge.value for edge in view.edges] == [0, 63, 0, 127]
    left.value = None
    assert "64 × 128 weights" in view.frame.answer.object
    left.value = 4
    view.show_all.clicks += 1
    assert left.value == 0
    left.value = 90
    view.live.choose(lambda: session.select("model.layers.0.self_attn.q_proj"))
    assert [edge.value for edge in view.edges] == [0, 63, 0, 63], "another layer is seen whole"


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
