"""A trace keeps what a run tells, and its tables hold the numbers that coders reported."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian, snapshots
from workbench import presets
from workbench.analysis.method.run_trace import Trace, tabulate_sweep_errors, tabulate_sweep_paths
from workbench.presets.preset import compose, make_part
from workbench.quantizers.contract import Sweeps


def traced(spelled: str, rows: int = 12, cols: int = 256) -> Trace:
    trace = Trace()
    for snapshot in snapshots(presets.parse(spelled), gaussian(rows, cols), correlated(cols))[0]:
        trace.see(snapshot)
    return trace


def test_sweeps_of_every_coder_and_block_are_kept() -> None:
    trace = traced("arb-llm")
    assert {(s.coder, s.start) for s in trace.sweeps} == {(coder, start) for coder in range(4) for start in (0, 128)}
    assert len(trace.settled) == len(trace.sweeps)
    assert trace.learning == []


def test_steps_of_learning_are_kept_without_their_memory() -> None:
    trace, recipe = Trace(), presets.recipe("btc", bits=1.0).replace(transform=make_part("transform", "learned", steps=12))
    for snapshot in snapshots(recipe, gaussian(12, 64), correlated(64))[0]:
        trace.see(snapshot)
    drawn, descended = ([step for step in trace.learning if (step.step > 0) == later] for later in (False, True))
    assert trace.learning == [*drawn, *descended]  # signs are drawn before the descent begins
    assert [step.step for step in descended] == list(range(1, len(descended) + 1))
    assert drawn
    assert descended
    assert all(step.memory is None for step in trace.learning)
    assert any(step.held_out is not None for step in trace.learning)


def test_a_grid_takes_no_sweeps() -> None:
    trace = traced("rtn")
    assert trace.settled == []
    assert len(tabulate_sweep_errors(trace.settled)) == 0


def test_errors_add_up_and_a_fit_that_stopped_keeps_its_last() -> None:
    fits = [Sweeps(0, 0, 8, (4.0, 2.0, 1.0), ()), Sweeps(0, 8, 16, (6.0, 5.0), ()), Sweeps(1, 0, 8, (3.0,), ())]
    table = tabulate_sweep_errors(fits)
    assert table.to_dict("list") == {
        "coder": [0, 0, 0, 1],
        "sweep": [0, 1, 2, 0],
        "error": [10, 7, 6, 3],
        "running": [2, 2, 1, 1],
        "share": [1, 0.7, 0.6, 1],
    }


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "plain"])
def test_paths_are_the_scales_and_means_of_the_first_rows(mean: bool) -> None:
    w = gaussian(3, 64) + 0.5
    fit = make_part("coder", "sign", planes=2, mean=mean).fit(w, torch.ones_like(w, dtype=torch.bool), None, None)
    table = tabulate_sweep_paths(Sweeps(0, 0, 64, fit.sweeps, fit.path))
    assert len(table) == 3 * 2 * len(fit.sweeps)
    last = table[(table["row"] == 1) & (table["plane"] == 2)].iloc[-1]
    assert last["scale"] == float(fit.params.scale[1, 1])
    assert last["mean"] == float(fit.params.mean[1]) if mean else last.isna()["mean"]


def test_recipes_without_sweeps_have_an_empty_table() -> None:
    assert list(tabulate_sweep_errors([]).columns) == ["coder", "sweep", "error", "running", "share"]
    assert compose(make_part("coder", "zero")).coders[0].fit(gaussian(2, 8), gaussian(2, 8) > 0, None, None).path == ()
