"""All channels at once: sizes against plain torch, and marks that all components share."""

import pytest
import torch

import workbench as wb
from workbench.session import Session, SharedModel
from workbench.views.weights.channel_scatter import describe_channels, locate_points
from workbench.widgets.weights.channel_scatter import ChannelScatter

DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def view(session: Session) -> ChannelScatter:
    """The channels of a matrix of 64 × 128 weights with a result, inputs measured."""
    session.shared.stats()
    session.select(DOWN)
    for _ in session.quantize_steps():
        pass
    return ChannelScatter(session, threaded=False)


def test_sizes_are_those_of_plain_torch(view: ChannelScatter) -> None:
    session = view.session
    weight, quantized = session.original().double(), session.result.weight().double()
    power = session.shared.stats()[DOWN].moment.diagonal().double()
    table = view.points.table
    assert table["channel"].tolist() == list(range(128))
    torch.testing.assert_close(
        torch.tensor(table["weight_rms"].to_numpy()).double(), weight.square().mean(0).sqrt(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(torch.tensor(table["second_moment"].to_numpy()), power, rtol=1e-6, atol=0)
    errors = (quantized - weight).square().sum(0) * power
    torch.testing.assert_close(torch.tensor(table["error_share"]), errors / errors.sum(), rtol=1e-5, atol=0)
    assert view.frame.figure.table["error_share"].is_monotonic_decreasing
    assert f"channel {int(errors.argmax())} the most" in view.frame.answer.object


def test_without_inputs_or_a_result_there_is_a_next_step(shared: SharedModel) -> None:
    fresh = ChannelScatter(Session(SharedModel(shared.model)), threaded=False)
    assert fresh.frame.figure is None
    assert "press Run calibration" in fresh.frame.answer.object
    assert fresh.read.visible
    fresh.read.clicks += 1
    assert fresh.notices.messages == []
    assert not fresh.read.visible
    assert "quantize the layer to colour them by their error" in fresh.frame.answer.object
    assert "error_share" not in fresh.points.table


def test_boxes_and_clicks_mark_channels_for_everybody(view: ChannelScatter) -> None:
    raster = wb.WeightRaster(view, threaded=False)
    across, up = locate_points(view.points.table)
    pane = view.frame.panes["channels"]
    before = pane.content
    pane._hear_tap(float(across[17]), float(up[17]))
    assert view.session.selection.channels == (17,)
    assert raster.frame.panes["original"]._marks.data.cols == (17,)
    pane._hear_box((float(across.min()), float(up.min()), float(across.max()), float(up.max())))
    assert len(view.session.selection.channels) == 128
    raster.live.mark(channels=[3])
    assert pane._marks.data[0] == (3,)
    assert pane.content is before, "a mark sends no points"


def test_channels_without_inputs_stand_on_the_edge(view: ChannelScatter) -> None:
    table = view.points.table.copy()
    table.loc[5, "second_moment"] = 0.0
    smallest = table["second_moment"].drop(5).min()
    assert locate_points(table)[1][5] == smallest
    assert "1 channel with inputs of 0 stands on the lower edge." in describe_channels(table)
