"""The roofline holds the limits it was given and every measured product of one setting."""

from dataclasses import replace

import pytest

from workbench.bench.machine import Limits, Machine
from workbench.bench.run import Measured, Result
from workbench.views.predictions.roofline import draw_roofline


def measured(name: str, threads: int, state: str, batch: int, bytes_: int, ratio: float) -> Measured:
    return Measured(name, state, threads, batch, 100.0, 90.0, 110.0, ratio, bytes_, 1.0, 10.0, 50.0 * batch, 1e-4)


@pytest.fixture
def result() -> Result:
    machine = Machine("a processor", 2, "avx2", "2", "0.6", 0.2, (Limits(1, 10.0, 100.0), Limits(2, 15.0, 200.0)))
    rows = [
        measured(name, threads, state, batch, size, ratio)
        for threads in (1, 2)
        for state in ("cold", "hot")
        for batch in (1, 8)
        for name, size, ratio in (("torch-fp32", 4000, 1.0), ("signs", 125, 20.0))
    ]
    return Result(machine, 10, 100, 5, "torch-fp32", tuple(rows))


def test_points_and_limits(result: Result) -> None:
    figure = draw_roofline(result, threads=1)
    reading, multiplying, torch, packed, possible = figure.plot["data"]  # and no layer, as none was measured
    assert max(multiplying["y"]) == 100
    assert [y / x for x, y in zip(reading["x"], reading["y"], strict=True)] == pytest.approx([10] * len(reading["x"]))
    assert torch["x"] == [0.5, 4.0]
    assert packed["x"] == [16.0, 128.0]
    assert packed["y"] == [50.0, 400.0]
    assert packed["textposition"] == ["bottom center", "top center"], "names of neighbours do not meet"
    assert sorted(possible["y"]) == pytest.approx(sorted([5.0, 40.0, 160.0, 1280.0]))


def test_the_table_holds_what_is_drawn(result: Result) -> None:
    table = draw_roofline(result, state="hot").table
    assert list(table["format"]) == ["torch-fp32", "signs", "torch-fp32", "signs"]
    assert set(table["memory_allows"]) == {7.5, 60.0, 240.0, 1920.0}, "two threads unless said otherwise"


def test_a_layer_stands_out_and_is_what_the_sentence_is_about(result: Result) -> None:
    rows = (*result.measured, measured("this layer", 1, "cold", 1, 250, 8.0))
    figure = draw_roofline(replace(result, measured=rows), threads=1)
    assert figure.plot["data"][4]["text"] == ["this layer"]
    assert figure.plot["data"][4]["marker"]["color"] != figure.plot["data"][3]["marker"]["color"]
    assert figure.answer.startswith("At batch 1, this layer takes 100 µs, 8.0 times as fast as torch in float32")


def test_the_sentence_names_the_fastest(result: Result) -> None:
    answer = draw_roofline(result, threads=1).answer
    assert answer.startswith("At batch 1, signs takes 100 µs, 20.0 times as fast as torch in float32")
    assert "31.2 % of the measured memory bandwidth" in answer
