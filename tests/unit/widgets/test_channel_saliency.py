"""Salient channels: brushed on the plot or typed, and followed; what is not known is a sentence."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.session import Session, SharedModel
from workbench.widgets.weights.channel_saliency import SaliencyView

DOWN, UP = "model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"


@pytest.fixture
def fresh(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Session:
    """A visitor of a model that nobody has calibrated."""
    monkeypatch.setattr("workbench.session.shared.CALIBRATION_TOKENS", 256)
    return Session(SharedModel(wb.open_model(tiny_models["llama"])), recipe=wb.recipe("rtn", bits=2, group=32))


def read(session: Session) -> Session:
    """The session with all layers read."""
    for _ in session.shared.sketch_steps():
        pass
    return session


def box(view: SaliencyView, *places: int) -> None:
    """A box drawn around points, as Panel tells it; a point of another trace is not a channel."""
    points = [{"curveNumber": 0, "pointNumber": place} for place in places]
    view.curve.plot.selected_data = {"points": [*points, {"curveNumber": 2, "pointNumber": 1}], "range": {}}


def test_a_box_marks_the_channels_inside(session: Session) -> None:
    view = SaliencyView(read(session), threaded=False)
    order = view.ranked["channel"].tolist()
    box(view, 0, 2)
    assert session.selection.channels == (order[0], order[2])
    assert view.curve.figure.plot["data"][1]["text"] == [order[0], order[2]]
    assert f"({order[0]}, {order[2]})" in view.curve.answer.object
    assert view.standing.figure.table["channel"].unique().tolist() == [order[0], order[2]]
    assert view.columns.figure.table["column"].tolist() == ["all columns", f"column {order[0]}", f"column {order[2]}"]
    assert view.stream.figure.table["channel"].unique().tolist() == [order[0], order[2]]


def test_the_keyboard_marks_the_same(session: Session) -> None:
    view = SaliencyView(read(session), threaded=False)
    view.channels.field.value = "4, 9"
    assert view.curve.figure.plot["data"][1]["text"] == sorted([4, 9], key=view.ranked["channel"].tolist().index)
    view.most.clicks += 1
    assert session.selection.channels == (view.ranked["channel"].iloc[0],)


def test_nothing_marked_is_a_sentence_with_the_next_step(session: Session) -> None:
    view = SaliencyView(session, threaded=False)
    for frame in (view.standing, view.columns, view.stream):
        assert frame.figure is None
        assert "draw a box around points" in frame.answer.object


def test_inputs_are_measured_once_the_text_has_been_read(fresh: Session) -> None:
    view = SaliencyView(fresh, threaded=False)
    assert view.measure.value == "column_energy"
    view.measure.value = "removal_cost"
    assert "press Run calibration" in view.curve.answer.object
    assert view.most.disabled
    view.read.clicks += 1
    assert not view.read.visible
    assert view.measure.value == "output_energy"
    assert "of the output energy" in view.curve.answer.object
    view.measure.value = "removal_cost"
    assert "cost of removing channels" in view.curve.answer.object


def test_a_channel_of_down_proj_is_a_neuron(session: Session) -> None:
    session.select(DOWN)
    session.mark(channels=[100])
    view = SaliencyView(read(session), threaded=False)
    assert "row 100 of gate_proj and row 100 of up_proj write it" in view.stream.answer.object
    view.live.choose(lambda: session.select(UP))
    view.live.mark(channels=[7])
    assert "is written most by" in view.stream.answer.object


def test_a_channel_of_the_stream_is_followed_in_the_layer_that_writes_it(session: Session) -> None:
    session.select(UP)
    session.mark(channels=[7])
    view = SaliencyView(read(session), threaded=False)
    before = view.stream.figure.table
    view.live.choose(lambda: session.select(DOWN))
    assert session.selection.rows == (7,)
    assert view.stream.figure.table.equals(before)
    view.live.choose(lambda: session.select("model.layers.1.self_attn.q_proj"))
    assert view.stream.figure.table.equals(before)
    assert session.selection.channels == (7,)


def test_the_masks_of_a_split_are_drawn(session: Session) -> None:
    session.use(wb.recipe("billm"))
    for _ in session.quantize_steps():
        pass
    view = SaliencyView(session, threaded=False)
    assert view.curve.figure.plot["data"][-1]["type"] == "heatmap"
    assert "The split has" in view.curve.answer.object


def test_a_family_that_is_not_known_is_not_followed(tiny_models: dict[str, Path]) -> None:
    session = Session(wb.open_model(tiny_models["gpt2"]))
    session.mark(channels=[1])
    view = SaliencyView(session, threaded=False)
    assert view.curve.figure is not None
    assert "cannot be followed from layer to layer: it has no" in view.stream.answer.object


def test_one_changed_weight_changes_what_is_shown(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "changed"))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name][3, 11] += 100.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    views = [SaliencyView(read(Session(wb.open_model(path))), threaded=False) for path in (tiny_models["llama"], folder)]
    firsts = [view.ranked["channel"].iloc[0] for view in views]
    assert firsts[1] == 11 != firsts[0]
    for view in views:
        view.live.mark(channels=[11])
    read_at = [view.stream.figure.table.set_index("stop")["read"]["0 · attention"] for view in views]
    assert read_at[1] > 3 * read_at[0]
