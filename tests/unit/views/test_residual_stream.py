"""Channels on their way through the model: four panels, a line a channel, and who writes and reads most."""

import numpy as np
import pandas as pd

from workbench.analysis.weights.residual_stream import Step, Stream, tabulate_stream_channels
from workbench.views.weights import residual_stream

NAN = float("nan")
STEPS = (Step("embedding", None, (), "e"), Step("0 · attention", "n", ("q",), "o"), Step("head", "m", ("h",), None))
FOUND = Stream(
    STEPS,
    written=np.array([[1.0, 2.0], [0.5, 3.0], [NAN, NAN]]),
    gain=np.array([[NAN, NAN], [1.0, 1.0], [1.0, 1.0]]),
    input_size=np.full((3, 2), NAN),
    read=np.array([[NAN, NAN], [1.0, 1.5], [1.0, 2.5]]),
)


def test_every_kind_that_is_known_has_a_panel() -> None:
    figure = residual_stream.draw_residual_stream(FOUND, tabulate_stream_channels(FOUND, [1, 0]))
    assert sorted({trace["yaxis"] for trace in figure.plot["data"]}) == ["y", "y2", "y3"]
    assert figure.plot["data"][0]["y"] == [2.0, 3.0, None]
    assert [trace["name"] for trace in figure.plot["data"] if trace["showlegend"]] == ["channel 1", "channel 0"]
    assert len(figure.table) == 6


def test_the_sentence_names_the_strongest_writer_and_reader() -> None:
    figure = residual_stream.draw_residual_stream(FOUND, tabulate_stream_channels(FOUND, [0, 1]))
    assert figure.answer == (
        "Channel 1 is written most by 0 · attention (3.00 ×) and read most by head (2.50 ×); 1 × is the average channel. "
        "Press Run calibration to see its inputs."
    )


def test_an_inner_channel_is_made_and_read_inside_its_block() -> None:
    table = pd.DataFrame(
        {"channel": [4, 4, 4], "name": ["b.gate_proj", "b.up_proj", "b.down_proj"], "part": ["row", "row", "column"],
         "index": [4, 4, 4], "times": [1.0, 2.0, 0.5]}
    )  # fmt: skip
    figure = residual_stream.draw_inner_channels(table)
    assert figure.plot["data"][0]["x"] == ["gate_proj row", "up_proj row", "down_proj column"]
    assert "row 4 of gate_proj and row 4 of up_proj write it" in figure.answer
