"""Every step has a picture, a sentence of what it does and a table; the colour scale is the same for all of them."""

import numpy as np
import pytest

from tests.unit.analysis.test_timeline import traced
from workbench import presets
from workbench.analysis.method.timeline import CODE, build_timeline, extract_still
from workbench.views.method import timeline as scrubber


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("gptq:bits=2", "are coded, and their error is fed back into the columns not yet coded"),
        ("rtn:bits=2", "each weight by the nearest value, without error feedback"),
        ("gptq:bits=2,act_order=true,static_groups=true", "Columns are coded in order of their second moment"),
        ("arb-llm", "scales are refitted to the signs, then signs to the scales"),
        ("btc:bits=0.8", "codewords are refitted to their vectors, then every vector is assigned to its nearest codeword"),
        ("btc:bits=1", "the basis is rotated so that rounding causes less output error"),
    ],
)
def test_each_step_says_what_it_does(spelled: str, said: str) -> None:
    trace = traced(spelled)
    moments, recipe = build_timeline(trace), presets.parse(spelled)
    figures = [
        scrubber.draw_timeline_step(trace.coding_trace, moment, extract_still(trace.coding_trace, moment), "error", recipe)
        for moment in moments
    ]
    assert any(said in figure.answer for figure in figures)
    assert len({figure.plot["data"][0]["zmax"] for figure in figures}) == 1, "one colour scale for all steps"
    assert all("nan" not in figure.answer for figure in figures)
    assert all(len(figure.table) == 16 for figure in figures)


def test_the_columns_of_this_step_are_framed() -> None:
    trace = traced("gptq:bits=2")
    moments = build_timeline(trace)
    coding = next(moment for moment in moments if moment.kind == CODE and moment.number == 2)
    figure = scrubber.draw_timeline_step(
        trace.coding_trace, coding, extract_still(trace.coding_trace, coding), "error", presets.parse("gptq:bits=2")
    )
    (shape,) = figure.plot["layout"]["shapes"]
    assert shape["x0"] <= coding.first <= coding.last <= shape["x1"] + trace.coding_trace.width
    last = scrubber.draw_timeline_step(
        trace.coding_trace, moments[-1], extract_still(trace.coding_trace, moments[-1]), "error", presets.parse("gptq:bits=2")
    )
    assert last.plot["layout"]["shapes"] == []
    assert "of the signs in the 24 rows shown differ" in last.answer


@pytest.mark.parametrize("what", ["error", "groups", "flipped signs"])
def test_all_three_pictures_can_be_shown(what: scrubber.What) -> None:
    trace = traced("billm")
    last = build_timeline(trace)[-1]
    figure = scrubber.draw_timeline_step(
        trace.coding_trace, last, extract_still(trace.coding_trace, last), what, presets.parse("billm")
    )
    heat = figure.plot["data"][0]
    assert np.isfinite(heat["z"]).all()
    assert np.nanmax(heat["z"]) <= heat["zmax"]


def test_losses_of_this_kind_of_phase_are_drawn_with_a_line_at_this_step() -> None:
    moments = build_timeline(traced("arb-llm"))
    figure = scrubber.draw_step_losses(moments, 3)
    (trace,) = figure.plot["data"]
    assert trace["name"] == "sweeps' error"
    assert None in trace["y"], "phases are apart"
    assert figure.plot["layout"]["shapes"][0]["x0"] == 4
    assert figure.answer.startswith(f"The run has {len(moments)} steps")
    assert "of the maximum on average" in figure.answer
    assert len(figure.table) == len(moments)
    last = scrubber.draw_step_losses(moments, len(moments) - 1)
    assert last.plot["data"][0]["name"] == "error of coded columns"


def test_the_columns_that_are_swept_are_framed_before_they_are_coded() -> None:
    trace = traced("arb-llm")
    sweep = build_timeline(trace)[1]
    figure = scrubber.draw_timeline_step(
        trace.coding_trace, sweep, extract_still(trace.coding_trace, sweep), "error", presets.parse("arb-llm")
    )
    (shape,) = figure.plot["layout"]["shapes"]
    assert (shape["x0"], shape["x1"]) == (-0.5, 127.5)
    assert figure.plot["layout"]["yaxis"]["range"] == [23.5, -0.5]
