"""The matrix as a picture: fields, buttons, zooms, boxes and clicks, and the marks that all components share."""

import gc
import weakref

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.session import Session
from workbench.widgets.weights.weight_raster import WeightRaster

DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def view(session: Session) -> WeightRaster:
    """A picture of a matrix of 64 × 128 weights."""
    session.select(DOWN)
    return WeightRaster(session, threaded=False)


def quantize(view: WeightRaster) -> torch.Tensor:
    """Quantize the layer on show; its weights."""
    for _ in view.session.quantize_steps():
        pass
    view.live.announce("results")
    return view.session.result.weight()


def shown(view: WeightRaster, kind: str = "original") -> np.ndarray:
    """The weights in the picture."""
    return view.frame.panes[kind].content.raster.values


def visible(view: WeightRaster) -> list[str]:
    return [kind for kind, pane in view.frame.panes.items() if pane.box.visible]


@pytest.mark.parametrize("what", ["original", "quantized", "difference"])
def test_the_picture_shows_what_is_asked(view: WeightRaster, what: str) -> None:
    view.what.value = what
    assert visible(view) == ["original"] * (what == "original")
    assert ("press Quantize this layer" in view.frame.answer.object) == (what != "original")
    quantized, original = quantize(view), view.session.original()
    weight = {"original": original, "quantized": quantized, "difference": quantized - original}[what]
    assert visible(view) == [what]
    np.testing.assert_array_equal(shown(view, what), weight.numpy())
    largest = weight.flatten()[weight.abs().argmax()].item()
    assert f"{largest:+.3g}" in view.frame.answer.object
    view.frame.as_table.value = True
    table = view.frame.figure.table
    first = (int(table["row"][0]), int(table["column"][0]))
    assert weight[first].item() == largest
    assert table["value"][0] == pytest.approx(original[first].item())
    assert table["became"][0] == pytest.approx(quantized[first].item())
    assert len(view.frame.table) == 1


def test_a_page_that_is_open_may_show_anything(view: WeightRaster) -> None:
    quantize(view)
    view.view.get_root()
    for what in ("side by side", "difference", "original", "side by side"):
        view.what.value = what
        assert visible(view) == (["original", "quantized", "difference"] if what == "side by side" else [what])
    view.live.choose(lambda: view.session.select("model.layers.0.self_attn.q_proj"))
    view.what.value = "quantized"
    assert visible(view) == []
    assert view.notices.messages == []


def test_all_three_stand_side_by_side_on_the_same_axes(view: WeightRaster) -> None:
    view.what.value = "side by side"
    assert visible(view) == ["original"]
    assert "press Quantize this layer" in view.frame.answer.object
    quantize(view)
    assert visible(view) == ["original", "quantized", "difference"]
    view.zoom((3, 9, 20, 29))
    contents = [pane.content for pane in view.frame.panes.values()]
    assert {(content.x, content.y) for content in contents} == {((19.5, 29.5), (2.5, 9.5))}
    assert contents[0].limit == contents[1].limit == contents[0].raster.compute_limit()


def test_fields_and_buttons_move_the_window(view: WeightRaster) -> None:
    for edge, value in zip(view.controls.edges, (5, 8, 100, 103), strict=True):
        edge.value = value
    np.testing.assert_array_equal(shown(view), view.session.original()[5:9, 100:104].numpy())
    assert "4 × 4 weights, single weights" in view.frame.answer.object
    for sign, window in {"↓": (7, 10, 100, 103), "→": (7, 10, 102, 105), "↑": (5, 8, 102, 105), "←": (5, 8, 100, 103)}.items():
        view.controls.moves[sign].clicks += 1
        assert view.controls.window == window
        assert shown(view).shape == (4, 4)
    view.controls.moves["+"].clicks += 1
    assert view.controls.window == (6, 7, 101, 102)
    view.controls.moves["−"].clicks += 1
    assert view.controls.window == (5, 8, 100, 103)
    view.controls.edges[1].value = 2
    assert view.controls.window == (2, 5, 100, 103), "edges may be written in any order"
    view.controls.edges[2].value = None
    assert view.controls.window == (2, 5, 0, 103)
    view.controls.show_all.clicks += 1
    assert [edge.value for edge in view.controls.edges] == [0, 63, 0, 127]
    assert all(button.description for button in view.controls.moves.values())


def test_another_layer_is_seen_whole(view: WeightRaster) -> None:
    view.zoom((5, 8, 100, 103))
    view.live.choose(lambda: view.session.select("model.layers.0.self_attn.q_proj"))
    assert view.controls.window == (0, 63, 0, 63)
    assert view.frame.panes["original"].content.x == (-0.5, 63.5)


def test_a_zoom_is_drawn_where_it_is_seen(view: WeightRaster) -> None:
    view.frame.panes["original"]._hear_ranges((9.7, 20.2), (31.4, 11.6))
    assert view.controls.window == (12, 31, 10, 20)
    content = view.frame.panes["original"].content
    assert (content.x, content.y) == ((9.7, 20.2), (11.6, 31.4)), "the picture stays where it was moved to"
    np.testing.assert_array_equal(shown(view), view.session.original()[12:32, 10:21].numpy())


def test_what_is_on_show_is_not_drawn_again(view: WeightRaster) -> None:
    pane = view.frame.panes["original"]
    before, sent = pane.content, []
    pane._pipe.add_subscriber(lambda data: sent.append(data))  # noqa: PLW0108  called as f(data=...)
    pane._hear_ranges(*view.axes)
    view.live.mark(rows=[3])
    view.live.announce("results")
    assert sent == []
    assert pane._marks.data.rows == (3,)
    view.share.value = 0.999
    assert sent == [pane.content]
    assert pane.content.limit < before.limit


def test_a_click_marks_the_weight_of_its_cell_for_everybody(view: WeightRaster) -> None:
    other = wb.WeightInspector(view, threaded=False)
    other.section.value = "Ranges"
    view.frame.panes["original"]._hear_tap(17.3, 4.4)
    assert (view.session.selection.rows, view.session.selection.channels) == ((4,), (17,))
    marks = {side: [s["x0"] for s in frame.figure.plot["layout"]["shapes"]] for side, frame in other["Ranges"].frames.items()}
    assert marks == {"row": [4], "column": [17]}
    other.live.mark(channels=[2, 3])
    marks = view.frame.panes["original"]._marks.data
    assert (marks.rows, marks.cols) == ((4,), (2, 3))


@pytest.mark.parametrize(
    ("box", "rows", "channels"),
    [
        ((9.6, 3.2, 12.4, 5.9), (4, 5), (10, 11, 12)),
        ((9.6, -0.5, 12.4, 63.5), (), (10, 11, 12)),
        ((-0.5, 3.2, 127.5, 5.9), (4, 5), ()),
        ((-0.5, -0.5, 127.5, 63.5), (), ()),
    ],
    ids=["both", "channels", "rows", "all"],
)
def test_a_box_marks_rows_and_channels(
    view: WeightRaster, box: tuple[float, ...], rows: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    view.frame.panes["original"]._hear_box(box)
    assert (view.session.selection.rows, view.session.selection.channels) == (rows, channels)
    assert view.notices.messages == []


def test_too_large_a_box_is_one_sentence(view: WeightRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.widgets.weights.weight_raster.MAX_RANGE_NUMBERS", 20)
    view.frame.panes["original"]._hear_box((3, -0.5, 90, 63.5))
    assert view.session.selection.channels == ()
    assert any("88 channels; mark at most 20 at once: zoom in first" in message for message in view.notices.messages)


def test_a_large_matrix_is_read_in_the_background_once(view: WeightRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.analysis.weights.cached_tables.LIGHT", 10)
    at_once = []
    run = view.study.run
    monkeypatch.setattr(view.study, "run", lambda *steps, **how: (at_once.append(how["at_once"]), run(*steps, **how)))
    view.live.choose(lambda: view.session.select("model.layers.0.self_attn.q_proj"))
    view.zoom((0, 9, 0, 9))
    assert at_once == [False, True]


def test_pictures_go_with_their_component(session: Session) -> None:
    view = WeightRaster(session, threaded=False)
    pane = weakref.ref(view.frame.panes["original"])
    del view
    gc.collect()
    assert pane() is None
