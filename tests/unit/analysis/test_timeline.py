"""The timeline holds every step that a run has told, in order, and its stills are the trace's pictures at that moment."""

import numpy as np
import pytest

from tests.battery.cases import correlated, gaussian, snapshots
from workbench import presets
from workbench.analysis.method.run_trace import Trace
from workbench.analysis.method.timeline import (
    CODE,
    CODEBOOK,
    LEARN,
    REFIT,
    SWEEP,
    Moment,
    build_timeline,
    extract_still,
    tabulate_timeline,
)
from workbench.presets.preset import make_part


def traced(spelled: str, cols: int = 256) -> Trace:
    trace, recipe = Trace(), presets.parse(spelled)
    if spelled == "btc:bits=1":
        recipe = recipe.replace(transform=make_part("transform", "learned", steps=6))
    for snapshot in snapshots(recipe, gaussian(24, cols), correlated(cols))[0]:
        trace.see(snapshot)
    return trace


@pytest.mark.parametrize(
    ("spelled", "kinds"),
    [
        pytest.param("gptq:bits=2", [CODE, REFIT], id="gptq"),
        pytest.param("rtn:bits=2", [CODE, REFIT], id="rtn"),
        pytest.param("arb-llm", [SWEEP, CODE, REFIT], id="arb-llm"),
        pytest.param("billm", [CODE, REFIT], id="billm"),
        pytest.param("btc:bits=0.8", [CODEBOOK, SWEEP, CODE, REFIT], id="btc"),
        pytest.param("btc-planes:bits=1.5", [CODEBOOK, SWEEP, CODE, REFIT], id="codebook-planes"),
        pytest.param("btc:bits=1", [LEARN, CODE, REFIT], id="learned"),
    ],
)
def test_a_run_is_its_phases_in_order(spelled: str, kinds: list[str]) -> None:
    trace = traced(spelled)
    moments = build_timeline(trace)
    assert list(dict.fromkeys(moment.kind for moment in moments)) == kinds
    frames = [moment.frame for moment in moments]
    assert frames == sorted(frames)
    assert trace.coding_trace is not None
    assert sum(moment.kind == CODE for moment in moments) == len(trace.coding_trace.ends)
    for moment in moments:
        assert 0 <= moment.number < moment.count
        assert 0 <= moment.first <= moment.last < 256
        assert moment.kind == REFIT or 0 <= moment.loss <= 1


def test_sweeps_of_a_block_come_before_its_columns_are_coded() -> None:
    moments = build_timeline(traced("arb-llm"))
    at = {name: i for i, name in enumerate(moment.phase for moment in moments)}
    assert at["sweeps over columns 0 to 127"] < at["sweeps over columns 128 to 255"]
    second = next(i for i, moment in enumerate(moments) if moment.phase == "sweeps over columns 128 to 255")
    coded = [moment.last for moment in moments[:second] if moment.kind == CODE]
    assert coded
    assert coded[-1] < 140, "the second block is fitted when it is reached"
    losses = [moment.loss for moment in moments if moment.phase == "sweeps over columns 0 to 127"]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == 1


def test_a_run_that_was_not_filmed_has_no_timeline() -> None:
    assert build_timeline(Trace()) == []
    assert tabulate_timeline([]).empty


def test_stills_show_what_is_coded_and_what_has_moved() -> None:
    trace = traced("gptq:bits=2")
    coding_trace, moments = trace.coding_trace, build_timeline(trace)
    assert coding_trace is not None
    middle = moments[len(moments) // 2]
    shown = extract_still(coding_trace, middle)
    coded = coding_trace.coded.numpy() < middle.frame
    assert np.isfinite(shown.residual).all(0).tolist() == coded.tolist()
    assert np.isfinite(shown.moved).tolist() == (~coded).tolist()
    assert np.nansum(shown.moved) > 0
    assert shown.now.any()
    assert not (shown.now & ~coded).any()
    np.testing.assert_array_equal(shown.residual[:, coded], coding_trace.pictures["block"].residual.float().numpy()[:, coded])
    last = extract_still(coding_trace, moments[-1])
    assert np.isfinite(last.residual).all()
    assert last.flipped.max() <= 1


def test_before_anything_is_coded_the_still_is_empty() -> None:
    trace = traced("btc:bits=0.8")
    first = build_timeline(trace)[0]
    assert (first.kind, first.frame) == (CODEBOOK, 0)
    assert trace.coding_trace is not None
    assert np.isnan(extract_still(trace.coding_trace, first).residual).all()


def test_the_table_counts_from_one() -> None:
    moments = [Moment(CODE, "coding columns", 0, 2, 0, 3, 0.5, 1), Moment(CODE, "coding columns", 1, 2, 4, 7, 1.0, 2)]
    table = tabulate_timeline(moments)
    assert table["scrub_step"].tolist() == table["number"].tolist() == [1, 2]
    assert table["phase_loss"].tolist() == [0.5, 1.0]
